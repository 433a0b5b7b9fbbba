"""What torch's own modules say of their sizes in attributes that a forward may never read.

`nn.Linear.forward` does not read `in_features`, yet people and exporters do. Each entry gives, for
a module class, which attribute equals which dimension of which of its tensors. It is the only
table of module classes, and it decides nothing about what can be cut.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from torch import nn

from secateur.core.dims import Dim, dim_size
from secateur.core.expressions import Binary, Expression, Field, Relation, Size

Types = Mapping[str, tuple[Dim, ...]]
"""Types of a module's own tensors by attribute name."""
Metadata = Iterator[tuple[str, int | None, Expression]]
"""Attribute, element of it or None, what it equals."""


def _linear(module: nn.Module, types: Types) -> Metadata:
    yield "out_features", None, Size(types["weight"][0])
    yield "in_features", None, Size(types["weight"][1])


def _convolution(module: nn.Module, types: Types) -> Metadata:
    weight = types["weight"]
    near, far = ("in", "out") if getattr(module, "transposed", False) else ("out", "in")
    yield f"{near}_channels", None, Size(weight[0])
    if module.groups == 1:
        yield f"{far}_channels", None, Size(weight[1])
    else:
        per_group = Size(weight[1])
        yield f"{far}_channels", None, Binary("mul", Field("", "groups"), per_group)


def _batch_norm(module: nn.Module, types: Types) -> Metadata:
    known = types.get("weight") or types.get("running_mean")
    if known is not None:
        yield "num_features", None, Size(known[0])


def _layer_norm(module: nn.Module, types: Types) -> Metadata:
    for k, dim in enumerate(types.get("weight", ())):
        yield "normalized_shape", k, Size(dim)


def _group_norm(module: nn.Module, types: Types) -> Metadata:
    if "weight" in types:
        yield "num_channels", None, Size(types["weight"][0])


def _embedding(module: nn.Module, types: Types) -> Metadata:
    yield "num_embeddings", None, Size(types["weight"][0])
    yield "embedding_dim", None, Size(types["weight"][1])


def _prelu(module: nn.Module, types: Types) -> Metadata:
    yield "num_parameters", None, Size(types["weight"][0])


def _recurrent(module: nn.Module, types: Types) -> Metadata:
    yield "input_size", None, Size(types["weight_ih_l0"][1])
    if "weight_hr_l0" in types:
        yield "proj_size", None, Size(types["weight_hr_l0"][0])
        yield "hidden_size", None, Size(types["weight_hr_l0"][1])
    else:
        yield "hidden_size", None, Size(types["weight_hh_l0"][1])


def _attention(module: nn.Module, types: Types) -> Metadata:
    embed, heads = Field("", "embed_dim"), Field("", "num_heads")
    yield "head_dim", None, Binary("floordiv", embed, heads)
    for name, key in (("kdim", "k_proj_weight"), ("vdim", "v_proj_weight")):
        if key in types:
            yield name, None, Size(types[key][1])
        else:
            yield name, None, embed


_TABLE: tuple[
    tuple[type[nn.Module] | tuple[type[nn.Module], ...], Callable[..., Metadata]], ...
] = (
    (nn.Linear, _linear),
    (nn.modules.conv._ConvNd, _convolution),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    ((nn.LayerNorm, nn.RMSNorm), _layer_norm),
    (nn.GroupNorm, _group_norm),
    ((nn.Embedding, nn.EmbeddingBag), _embedding),
    (nn.PReLU, _prelu),
    (nn.RNNBase, _recurrent),
    (nn.MultiheadAttention, _attention),
)


def metadata(owner: str, module: nn.Module, types: Types) -> Iterator[tuple[Relation, Field, int]]:
    """Relations of a module's attributes with its tensors, the fields in them and their values.

    An entry that does not hold now (a subclass that uses the attribute otherwise) is left out.
    """
    own_class: Any = type(module)
    for describe in _descriptions(own_class):
        try:
            entries = list(describe(module, types))
        except KeyError:
            continue  # a subclass or parametrization without the usual tensors
        for name, element, expression in entries:
            value = getattr(module, name, None)
            value = value if element is None or value is None else value[element]
            own = _owned(expression, owner)
            if isinstance(value, int) and value == _value(expression, module):
                field = Field(owner, name, element)
                yield (
                    Relation("eq", field, own, True, f"{type(module).__name__}.{name}"),
                    field,
                    value,
                )


@cache
def _descriptions(kind: Any) -> tuple[Callable[..., Metadata], ...]:
    """The entries of the table for a class of modules."""
    return tuple(describe for kinds, describe in _TABLE if issubclass(kind, kinds))


def _owned(expression: Expression, owner: str) -> Expression:
    if isinstance(expression, Field):
        return Field(owner, expression.name, expression.index)
    if isinstance(expression, Binary):
        return Binary(
            expression.op, _owned(expression.left, owner), _owned(expression.right, owner)
        )
    return expression


def _value(expression: Expression, module: nn.Module) -> int:
    if isinstance(expression, Size):
        return dim_size(expression.dim)
    if isinstance(expression, Field):
        return int(getattr(module, expression.name))
    if isinstance(expression, Binary):
        left, right = _value(expression.left, module), _value(expression.right, module)
        return left * right if expression.op == "mul" else left // right
    return expression
