"""Tensors whose values number the indices of an axis: which experts a token goes to.

The largest few of a router's scores are indices of the experts' axis. Where every use of them can
be followed, an expert can be removed like any other unit: its row of the router goes, its slice of
the stacked weights goes, and the rest are numbered anew. A use that cannot be followed pins the
axis. Only tensors without values (on meta) are followed: what has values can be read by code that
no one sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.graph.call import OpCall
from secateur.graph.types import Product, pin

_NUMBERS = "_secateur_numbers"
_COUNTS = "_secateur_counts"
_CARRIES = frozenset(
    "view _unsafe_view reshape clone alias detach t transpose permute unsqueeze squeeze expand "
    "_to_copy slice select contiguous".split()
)
"""Operators whose result has the same values, or some of them."""
_COUNTS_CARRIED = frozenset("cumsum _to_copy clone alias detach".split())
_PICKS = frozenset(("index", "gather", "index_select"))
UNFOLLOWED = "its indices are used in a way that is not followed"


def numbers_of(tensor: Any) -> Product | None:
    """The dimension whose indices are the values of a tensor."""
    return getattr(tensor, _NUMBERS, None)


def counts_of(tensor: Any) -> Product | None:
    """The dimension for each of whose indices a tensor counts how often it was chosen."""
    return getattr(tensor, _COUNTS, None)


def set_numbers(tensor: Tensor, product: Product) -> None:
    """Say that the values of a tensor are indices of a dimension."""
    setattr(tensor, _NUMBERS, product)


def set_counts(tensor: Tensor, product: Product) -> None:
    """Say that a tensor counts how often each index of a dimension was chosen."""
    setattr(tensor, _COUNTS, product)


def copy_roles(source: Tensor, target: Tensor) -> None:
    """What the values of one tensor mean is what those of its stand-in mean."""
    for role in (_NUMBERS, _COUNTS):
        product = getattr(source, role, None)
        if product is not None:
            setattr(target, role, product)


def follow_numbers(call: OpCall, ins: Sequence[Tensor], outs: Sequence[Tensor]) -> None:
    """After an operator's rule: hand the meaning of values on, or pin what they number."""
    for tensor in ins:
        product = getattr(tensor, _NUMBERS, None)
        if product is not None and not _handed_on(call, tensor, product, outs):
            pin(product, UNFOLLOWED)
        counted = getattr(tensor, _COUNTS, None)
        if counted is not None and call.name in _COUNTS_CARRIED and outs:
            set_counts(outs[0], counted)


def pin_numbers(tensors: Sequence[Tensor]) -> None:
    """Values that leave the model are read by someone who numbers as before."""
    for tensor in tensors:
        product = getattr(tensor, _NUMBERS, None)
        if product is not None:
            pin(product, "its indices are an output of the model")


def _handed_on(call: OpCall, tensor: Tensor, product: Product, outs: Sequence[Tensor]) -> bool:
    first = call.args[0] if call.args else None
    if not outs or not outs[0].is_meta or outs[0].dtype is torch.bool:
        return False
    if call.name == "view" and outs[0].dtype is not tensor.dtype:
        return False  # the same bits, read as other numbers
    if call.name in _CARRIES or (call.name == "sort" and first is tensor):
        set_numbers(outs[0], product)
        return True
    if call.name in _PICKS and first is tensor and sum(t is tensor for t in call.args) == 1:
        set_numbers(outs[0], product)
        return True
    if call.name == "index":
        return True  # the rule made the indexed dimension the numbered one
    return call.name == "histc" and counts_of(outs[0]) is product
