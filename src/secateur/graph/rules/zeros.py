"""Where a tensor is not zero although a unit's parameters are, and what follows for sums.

A parameter is zero at a zeroed unit, and so is what a matrix product makes of it. A sigmoid,
``elu + 1``, or a sum with something that does not know the unit, is not: it *survives*. Nothing
is lost while a later weight, zeroed too, multiplies it; but a sum over such units keeps what
removing them takes away, so there the axis is flagged. The recorder calls `follow_zeros` after each
operator; the rules of sums call `flag_surviving`.

A pointwise operator is not looked up but run, on zero and on a number that is not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product as combinations
from typing import Any

import torch
from torch import Tensor

from secateur.graph.call import OpCall, dims_of
from secateur.graph.types import Atom, Product, flag, leaves, resolve

SURVIVORS_ATTRIBUTE = "_secateur_survivors"

_PRODUCTS = frozenset(
    "mm bmm matmul addmm baddbmm addbmm mv addmv dot vdot linear convolution _convolution "
    "scaled_dot_product_attention _scaled_dot_product_attention_math "
    "_scaled_dot_product_flash_attention _scaled_dot_product_flash_attention_for_cpu "
    "_scaled_dot_product_efficient_attention _scaled_dot_product_cudnn_attention "
    "_scaled_dot_product_fused_attention_overrideable _grouped_mm _trilinear".split()
)
_SHIFTING_NORMS = {
    # the first of the dimensions where, without a weight, zero becomes minus the mean
    **dict.fromkeys("native_group_norm group_norm native_batch_norm batch_norm".split(), 1),
    **dict.fromkeys("_native_batch_norm_legit instance_norm".split(), 1),
    **dict.fromkeys("_native_batch_norm_legit_no_training cudnn_batch_norm".split(), 1),
    **dict.fromkeys("native_layer_norm layer_norm".split(), -1),
}
_SCALING_NORMS = frozenset("_fused_rms_norm rms_norm".split())
_WEIGHED = frozenset({*_SHIFTING_NORMS, *_SCALING_NORMS})
"""With a weight and a bias these are zero where their input is."""
_NEVER_ZERO = frozenset(
    "_softmax softmax _safe_softmax _log_softmax log_softmax log_sigmoid log_sigmoid_forward "
    "ones ones_like full full_like new_ones new_full fill rand randn rand_like randn_like "
    "arange linspace".split()
)
_KEEPING_ZERO = frozenset("relu add sub mul silu gelu hardswish".split())
"""Pointwise operators that make zero of zeros. Any other is asked; these are met in every model."""
_COPYING = frozenset("expand expand_as broadcast_to repeat repeat_interleave tile".split())


def survivors(tensor: Any) -> set[Atom]:
    """The axes at whose zeroed units a tensor may be nonzero."""
    return {a for a in leaves(getattr(tensor, SURVIVORS_ATTRIBUTE, ())) if a.pin is None}


def flag_surviving(product: Product, *factors: Any) -> None:
    """Flag what a sum of products runs over where no factor is zero at a zeroed unit."""
    nowhere_zero = set.intersection(*(survivors(factor) for factor in factors))
    for atom in leaves(product):
        if atom in nowhere_zero:
            flag((atom,), "renormalised", "a sum over it of what is not zero at a zeroed unit")


def follow_zeros(call: OpCall) -> None:
    """Note on the outputs of a finished call, whose types are known, where they survive."""
    for out in call.out if call.returns_many else [call.out]:
        if isinstance(out, Tensor):
            atoms = tuple(_survivors_of(call, call.name.rstrip("_") or call.name, out))
            if atoms or hasattr(out, SURVIVORS_ATTRIBUTE):
                setattr(out, SURVIVORS_ATTRIBUTE, atoms)


def _survivors_of(call: OpCall, name: str, out: Tensor) -> Iterable[Atom]:
    if name in _NEVER_ZERO:
        return _atoms(out)
    if name in _WEIGHED and call.get("weight") is not None and not _any_survive(call.tensors):
        return ()
    if name in _SHIFTING_NORMS or name in _SCALING_NORMS:
        return _after_norm(call, name) & _atoms(out)
    if name in _PRODUCTS:
        return _after_product(call, call.tensors, _atoms(out))
    if name == "copy":
        return survivors(call.get("src")) & _atoms(out)
    if torch.Tag.pointwise in call.func.tags:
        return _after_pointwise(call, name, out)
    surviving = set().union(*(survivors(t) for t in call.tensors))
    if name in _COPYING:
        surviving |= _atoms(out).difference(*(_atoms(t) for t in call.tensors))
    return surviving & _atoms(out) if surviving else surviving


def _any_survive(tensors: Iterable[Tensor]) -> bool:
    return any(getattr(tensor, SURVIVORS_ATTRIBUTE, ()) for tensor in tensors)


def _atoms(tensor: Tensor) -> set[Atom]:
    """Those that can still be removed; the rest is of no interest here."""
    return {a for product in dims_of(tensor) for a in leaves(product) if a.pin is None}


def _after_norm(call: OpCall, name: str) -> set[Atom]:
    """With a weight and a bias the unit is zero again, for they are."""
    x, weight = call.get("input"), call.get("weight")
    surviving = survivors(x)
    if isinstance(weight, Tensor):
        return surviving - _atoms(weight)
    if name not in _SHIFTING_NORMS:
        return surviving
    first = _SHIFTING_NORMS[name]
    shifted = dims_of(x)[1:2] if first == 1 else dims_of(x)[-len(call.get("normalized_shape")) :]
    return surviving | {atom for product in shifted for atom in leaves(product)}


def _after_product(call: OpCall, inputs: list[Tensor], atoms: set[Atom]) -> set[Atom]:
    """A product is zero where one factor is; what is added must be zero too."""
    addends = [call.get("bias")]
    if call.name.startswith(("add", "badd")):
        addends.append(call.get("self"))
    addends = [t for t in addends if isinstance(t, Tensor)]
    masks = [call.get("attn_mask"), call.get("attn_bias"), call.get("offs")]
    factors = [t for t in inputs if not any(t is other for other in (*addends, *masks))]
    zero = set().union(*(_atoms(t) - survivors(t) for t in factors))
    for addend in addends:
        zero &= _atoms(addend) - survivors(addend)
    return atoms - zero


def _after_pointwise(call: OpCall, name: str, out: Tensor) -> Iterator[Atom]:
    tensors = call.tensors
    alone = len(tensors) == len(call.args) and not call.kwargs  # no numbers that may be added
    if name in _KEEPING_ZERO and alone and not _any_survive(tensors) and _same_dims(out, tensors):
        return
    # a layout is that of the whole tensor, which a single number does not have
    named = [item for item in call.kwargs.items() if item[0] != "memory_format"]
    given = _template(tuple(call.args)), _template(tuple(named))
    dtypes = tuple(tensor.dtype for tensor in tensors)
    surviving = [survivors(tensor) for tensor in tensors]
    known: dict[tuple[bool, ...], bool] = {}

    def outcome(zeros: tuple[bool, ...]) -> bool:
        if zeros not in known:
            known[zeros] = _probe(call.func, given, dtypes, zeros)
        return known[zeros]

    if not outcome((True,) * len(tensors)) and _same_dims(out, tensors):
        # every axis is in every tensor, so only those that survive somewhere need a look
        for atom in set().union(*surviving) & _atoms(out) if any(surviving) else ():
            if outcome(tuple(atom not in own for own in surviving)):
                yield atom
        return
    zero_at = [_atoms(tensor) - own for tensor, own in zip(tensors, surviving, strict=True)]
    for atom in _atoms(out):
        if outcome(tuple(atom in zero for zero in zero_at)):
            yield atom


def _same_dims(out: Tensor, tensors: list[Tensor]) -> bool:
    dims = dims_of(out)
    resolved = [resolve(product) for product in dims]
    return all(
        own is dims or [resolve(product) for product in own] == resolved
        for own in map(dims_of, tensors)
    )


_TENSOR = object()
"""Stands for a tensor in the arguments of an operator."""


def _template(value: Any) -> Any:
    if isinstance(value, Tensor):
        return _TENSOR
    return tuple(map(_template, value)) if isinstance(value, (list, tuple)) else value


def _filled(template: Any, numbers: Iterator[Tensor]) -> Any:
    if template is _TENSOR:
        return next(numbers)
    if isinstance(template, tuple):
        return tuple(_filled(item, numbers) for item in template)
    return template


@cache
def _probe(
    func: torch._ops.OpOverload,
    given: tuple[Any, Any],
    dtypes: tuple[torch.dtype, ...],
    zeros: tuple[bool, ...],
) -> bool:
    """Run an operator on single numbers, some zero; whether an outcome can be nonzero.

    A mask may be true or false at the unit, so both are tried.
    """
    # numbers that differ, so that a difference of two survivors is not taken for zero
    choices = [
        (0, 1) if dtype == torch.bool else (0 if zero else 2 + k,)
        for k, (dtype, zero) in enumerate(zip(dtypes, zeros, strict=True))
    ]
    for numbers in combinations(*choices):
        tensors = iter(
            [torch.tensor([n]).to(dtype) for n, dtype in zip(numbers, dtypes, strict=True)]
        )
        args, named = _filled(given[0], tensors), _filled(given[1], tensors)
        out = func(*args, **dict(named))
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            # zero by zero is undefined at a unit that is gone; it says nothing
            if bool((tensor.nan_to_num(0.0, 1.0, -1.0) != 0).any()):
                return True
    return False
