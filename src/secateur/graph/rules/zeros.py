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
from torch.utils._pytree import tree_flatten, tree_unflatten

from secateur.graph.call import OpCall, dims_of
from secateur.graph.types import Atom, Product, flag, leaves

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
_NEVER_ZERO = frozenset(
    "_softmax softmax _safe_softmax _log_softmax log_softmax log_sigmoid log_sigmoid_forward "
    "ones ones_like full full_like new_ones new_full fill rand randn rand_like randn_like "
    "arange linspace".split()
)
_COPYING = frozenset("expand expand_as broadcast_to repeat repeat_interleave tile".split())


def survivors(tensor: Any) -> set[Atom]:
    """The axes at whose zeroed units a tensor may be nonzero."""
    return set(leaves(getattr(tensor, SURVIVORS_ATTRIBUTE, ())))


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
            atoms = tuple(_survivors_of(call, call.name.rstrip("_") or call.name, _atoms(out)))
            if atoms or hasattr(out, SURVIVORS_ATTRIBUTE):
                setattr(out, SURVIVORS_ATTRIBUTE, atoms)


def _survivors_of(call: OpCall, name: str, atoms: set[Atom]) -> Iterable[Atom]:
    inputs = list(_tensors(call))
    if name in _NEVER_ZERO:
        return atoms
    if name in _SHIFTING_NORMS or name in _SCALING_NORMS:
        return _after_norm(call, name) & atoms
    if name in _PRODUCTS:
        return _after_product(call, inputs, atoms)
    if name == "copy":
        return survivors(call.get("src")) & atoms
    if torch.Tag.pointwise in call.func.tags:
        return _after_pointwise(call, inputs, atoms)
    surviving = set().union(*(survivors(t) for t in inputs)) & atoms
    if name in _COPYING:
        surviving |= atoms - set().union(*(_atoms(t) for t in inputs))
    return surviving


def _atoms(tensor: Tensor) -> set[Atom]:
    return {atom for product in dims_of(tensor) for atom in leaves(product)}


def _tensors(call: OpCall) -> Iterator[Tensor]:
    flat = tree_flatten((tuple(call.args), call.kwargs))[0]
    return (item for item in flat if isinstance(item, Tensor))


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


def _after_pointwise(call: OpCall, inputs: list[Tensor], atoms: set[Atom]) -> Iterator[Atom]:
    # a layout is that of the whole tensor, which a single number does not have
    kwargs = {key: value for key, value in call.kwargs.items() if key != "memory_format"}
    flat, spec = tree_flatten((tuple(call.args), kwargs))
    rest = tuple(None if isinstance(item, Tensor) else item for item in flat)
    dtypes = tuple(item.dtype if isinstance(item, Tensor) else None for item in flat)
    zero_at = [_atoms(item) - survivors(item) if isinstance(item, Tensor) else () for item in flat]
    for atom in atoms:
        zeros = tuple(atom in zero for zero in zero_at)
        if _probe(call.func, spec, rest, dtypes, zeros):
            yield atom


@cache
def _probe(
    func: torch._ops.OpOverload,
    spec: Any,
    rest: tuple[Any, ...],
    dtypes: tuple[torch.dtype | None, ...],
    zeros: tuple[bool, ...],
) -> bool:
    """Run an operator on single numbers, some zero; whether an outcome can be nonzero.

    A mask may be true or false at the unit, so both are tried.
    """
    # numbers that differ, so that a difference of two survivors is not taken for zero
    choices = [
        (None,) if dtype is None else (0, 1) if dtype == torch.bool else (0 if zero else 2 + k,)
        for k, (dtype, zero) in enumerate(zip(dtypes, zeros, strict=True))
    ]
    for numbers in combinations(*choices):
        flat = [
            item if dtype is None else torch.tensor([number]).to(dtype)
            for item, number, dtype in zip(rest, numbers, dtypes, strict=True)
        ]
        args, kwargs = tree_unflatten(flat, spec)
        out = func(*args, **kwargs)
        for tensor in out if isinstance(out, (tuple, list)) else [out]:
            # zero by zero is undefined at a unit that is gone; it says nothing
            if bool((tensor.nan_to_num(0.0, 1.0, -1.0) != 0).any()):
                return True
    return False
