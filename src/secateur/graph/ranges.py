"""Ranges that a model's Python code takes of a dimension: where their bounds come from.

A bound made of sizes gives an equation for the part before it, a literal pins that part.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.graph.call import dims_of
from secateur.graph.sized_ints import Ledger, SizedInt, location
from secateur.graph.types import Product, size_of, split


def sliced(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """x[a:b]: the part before `a` and the part before `b` have those sizes."""
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    if not isinstance(args[0], Tensor) or not any(isinstance(item, slice) for item in index):
        return result
    where = f"a slice at {location(2)}"
    for item, dim in _indexed_dims(index, dims_of(args[0])):
        if item.step in (None, 1):
            for bound in (item.start, item.stop):
                _bound(ledger, bound, dim, where)
    return result


def _indexed_dims(index: Sequence[Any], dims: Sequence[Product]) -> Iterator[tuple[slice, Product]]:
    taken = sum(
        max(1, item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1)
        for item in index
        if item is not None and item is not Ellipsis and not isinstance(item, bool)
    )
    position = 0
    for item in index:
        if item is None or isinstance(item, bool):
            continue
        if item is Ellipsis:
            position += len(dims) - taken
            continue
        if isinstance(item, slice):
            yield item, dims[position]
        position += item.dim() if isinstance(item, Tensor) and item.dtype == torch.bool else 1


def _bound(ledger: Ledger, bound: Any, dim: Product, where: str) -> None:
    if isinstance(bound, Tensor) and not bound.is_meta and bound.numel() == 1:
        bound = int(bound)  # where its value came from is not known: a literal
    if not isinstance(bound, int) or bound == 0 or not -size_of(dim) < bound < size_of(dim):
        return
    if bound > 0:
        before, _ = split(dim, int(bound))
        assert before is not None
        _arrive_or_pin(ledger, bound, before, where)
    else:
        _, after = split(dim, size_of(dim) + int(bound))
        assert after is not None
        _arrive_or_pin(ledger, -int(bound), after, where)


def _arrive_or_pin(ledger: Ledger, value: int, product: Product, where: str) -> None:
    """Like `arrive`, for sizes of one as well."""
    if isinstance(value, SizedInt):
        ledger.arrive(value, product, where)
    else:
        ledger.literals.append((product, where))


def narrowed(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    dim, start = args[1], args[2]
    where = f"narrow at {location(2)}"
    _bound(ledger, start, dims_of(args[0])[dim], where)
    if len(args) > 3:
        ledger.arrive(args[3], dims_of(result)[dim], where)
    return result
