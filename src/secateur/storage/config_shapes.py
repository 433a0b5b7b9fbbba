"""Every tensor dimension of a model as an expression in its configuration's integers.

The model's class is built once on the meta device from a configuration whose integers carry their
names; a function mode sees the sizes with which each tensor is made. So `q_proj.weight` of a Llama
is found to be ``[num_attention_heads * head_dim, hidden_size]`` for any architecture, with no table
of them. Comparisons that the constructor makes (``hidden % heads != 0``) come out as conditions.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from secateur.core.expressions import Binary, Expression, Field, Relation, evaluate, leaves
from secateur.core.fingerprint import named_tensors
from secateur.graph.sized_ints import Ledger, SizedInt
from secateur.storage.config_fields import integer_fields, replace_integers_

Sizes = tuple[Expression | None, ...]
_ELEMENTWISE = frozenset("add mul rmul radd sub div truediv clone to".split())
_INITIALISATION = frozenset({"_init_weights", "init_weights", "initialize_weights"})


@dataclass(frozen=True)
class ConfigShapes:
    """tensors: an expression for each dimension, a plain int where no field decides it.
    attributes: integer attributes that the constructor computed. conditions: comparisons that it
    made. scales: sizes that it made a number of (``head_dim ** -0.5``), which a cut model keeps and
    a rebuilt one computes anew. fields: the configuration's integers with their values."""

    tensors: Mapping[str, tuple[Expression, ...]]
    attributes: Mapping[Field, Expression]
    conditions: tuple[Relation, ...]
    scales: tuple[Relation, ...]
    fields: Mapping[Field, int]


def config_shapes(
    build: Callable[[Any], nn.Module], config: Any, *, nested: type, module_names: set[str]
) -> ConfigShapes:
    """Build symbolically. `config` is a copy to be spoilt; `module_names` are the Python modules
    in which `int(width / heads)` must keep its name (where the architecture is written)."""
    fields = integer_fields(config, nested=nested)
    ledger = _ConfigLedger()
    replace_integers_(config, nested=nested, new=lambda field, value: ledger.tag(value, field))
    recorder = _SizeRecorder()
    with torch.device("meta"), recorder, _int_keeps_names(module_names):
        model = build(config)
        validate = getattr(config, "validate_architecture", None)
        if validate is not None:
            validate()
    try:
        return ConfigShapes(
            tensors={name: recorder.sizes(tensor) for name, tensor in named_tensors(model)},
            attributes=dict(_attributes(model)),
            conditions=_conditions(ledger, fields),
            scales=_scales(ledger, fields),
            fields=fields,
        )
    finally:
        ledger.open = False


class _ConfigLedger(Ledger):
    """Tags survive the copies and divisions that constructors make; scales that only the random
    initialisation uses are left out."""

    def number(self, value: Any, what: str) -> Any:
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            if frame.f_code.co_name in _INITIALISATION:
                return int(value) if isinstance(value, SizedInt) else value
            frame = frame.f_back
        return super().number(value, what)

    def tag(self, value: int, expression: Any) -> int:
        # a remainder of 0 stays named: `width % heads != 0` is a condition
        named = value > 1 or (isinstance(expression, Binary) and expression.op == "mod")
        return _ConfigInt(value, expression, self) if named else value


class _ConfigInt(SizedInt):
    def __copy__(self) -> int:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> int:
        return self

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, int) or int(self) % int(other):
            return super().__truediv__(other)
        return _Quotient(int(self) / int(other), self // other)


class _Quotient(float):
    """A quotient of two sizes that `int(...)` may turn back into a size."""

    whole: int

    def __new__(cls, value: float, whole: int) -> _Quotient:
        self = float.__new__(cls, value)
        self.whole = whole
        return self


class _KeepsInstances(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, int)


class _NamedInt(int, metaclass=_KeepsInstances):
    """Stands for `int` while a constructor runs: `int(width / heads)` is still those two."""

    def __new__(cls, value: Any = 0, *rest: Any) -> Any:
        if isinstance(value, _Quotient):
            return value.whole
        return value if isinstance(value, SizedInt) else int(value, *rest)


@contextmanager
def _int_keeps_names(module_names: set[str]) -> Iterator[None]:
    spaces = [vars(sys.modules[name]) for name in sorted(module_names) if name in sys.modules]
    spaces = [space for space in spaces if "int" not in space]
    for space in spaces:
        space["int"] = _NamedInt
    try:
        yield
    finally:
        for space in spaces:
            del space["int"]


class _SizeRecorder(TorchFunctionMode):
    """Remembers with which sizes each piece of memory was made."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[Tensor, Sizes]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*_plain(args), **_plain(kwargs))
        if isinstance(result, Tensor) and not any(isinstance(arg, Tensor) for arg in args[:1]):
            asked = _asked_sizes(args, kwargs)
            if asked is not None and tuple(map(int, asked)) == tuple(result.shape):
                sizes = tuple(_expression(size) for size in asked)
                # the tensor is kept, so its memory's address is not used again
                self._made[_address(result)] = (result, sizes)
        elif isinstance(result, Tensor) and func.__name__.strip("_") in _ELEMENTWISE:
            for tensor in args:
                made = self._made.get(_address(tensor)) if isinstance(tensor, Tensor) else None
                if made is not None and made[0].shape == tensor.shape == result.shape:
                    self._made.setdefault(_address(result), (result, made[1]))
        return result

    def sizes(self, tensor: Tensor) -> tuple[Expression, ...]:
        """An expression for each dimension of a tensor; its present size where none is known."""
        made = self._made.get(_address(tensor))
        plain = tuple(tensor.shape)
        if made is None or tuple(made[0].shape) != plain or not tensor.is_contiguous():
            return plain
        return tuple(
            size if expression is None else expression
            for expression, size in zip(made[1], plain, strict=True)
        )


def _address(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address


def _asked_sizes(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[int, ...] | None:
    if "size" in kwargs:
        return tuple(kwargs["size"])
    if args and isinstance(args[0], (tuple, list)):
        return tuple(args[0]) if all(isinstance(item, int) for item in args[0]) else None
    return tuple(args) if args and all(isinstance(arg, int) for arg in args) else None


def _plain(value: Any) -> Any:
    if isinstance(value, SizedInt):
        return int(value)
    if type(value) in (tuple, list, torch.Size):
        return type(value)(_plain(item) for item in value)
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    return value


def _expression(size: int) -> Expression | None:
    return size.expression if isinstance(size, SizedInt) else None


def _attributes(model: nn.Module) -> Iterator[tuple[Field, Expression]]:
    for owner, module in model.named_modules():
        for name, value in vars(module).items():
            if isinstance(value, SizedInt):
                yield Field(owner, name), value.expression
            elif type(value) in (tuple, list):
                for k, item in enumerate(value):
                    if isinstance(item, SizedInt):
                        yield Field(owner, name, k), item.expression


def _conditions(ledger: Ledger, fields: Mapping[Field, int]) -> tuple[Relation, ...]:
    found = dict.fromkeys(
        Relation(note.op, note.left, note.right, note.holds, note.where) for note in ledger.notes
    )
    return tuple(
        relation
        for relation in found
        if all(leaf in fields for side in (relation.left, relation.right) for leaf in leaves(side))
    )


def _scales(ledger: Ledger, fields: Mapping[Field, int]) -> tuple[Relation, ...]:
    return tuple(
        Relation("eq", expression, evaluate(expression, {}, fields) or 0, True, f"a scale at {at}")
        for expression, at in dict.fromkeys((c.expression, c.where) for c in ledger.conversions)
    )


def show(expression: Expression) -> str:
    """An expression as a person would write it.

    >>> show(Binary("floordiv", Field("", "config.hidden_size"), 4))
    'config.hidden_size // 4'
    """
    if not isinstance(expression, Binary):
        return str(expression)
    sign = {"add": "+", "sub": "-", "mul": "*", "floordiv": "//", "mod": "%"}[expression.op]
    sides = [
        f"({show(side)})" if isinstance(side, Binary) else show(side)
        for side in (expression.left, expression.right)
    ]
    return f"{sides[0]} {sign} {sides[1]}"
