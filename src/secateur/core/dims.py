"""Solved dimension types: what a tensor dimension consists of, as a frozen value.

A dimension is a row-major product of factors; a factor is an axis (its indices can be kept or
removed one by one) or a concatenation of dimensions. A fused qkv output is ``(three, heads,
head_dim)``; a DenseNet input is ``(Concat(((a,), (b,), (c,))),)``; a dimension of size 1 is ``()``.

Everything that slices or predicts is one of the small recursions below; `graph/` makes these
values, the rest of the library only reads them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Axis:
    """One inferred axis: `index` numbers it within its graph, `size` counts its units."""

    index: int
    size: int

    def __hash__(self) -> int:
        return self.index  # one graph's axes are told apart by it, and it is asked for very often


@dataclass(frozen=True, slots=True)
class Concat:
    """Dimensions laid one after another along one tensor dimension."""

    parts: tuple[Dim, ...]


Factor = Axis | Concat
Dim = tuple[Factor, ...]
Counts = Mapping[int, int]
"""How many units each axis keeps; an axis that is absent keeps all."""
Keep = Mapping[int, Tensor]
"""Which units each axis keeps, int64 and sorted; an axis that is absent keeps all."""


def dim_size(dim: Dim) -> int:
    """Number of indices of a dimension.

    >>> dim_size((Axis(0, 3), Concat(((Axis(1, 4),), (Axis(2, 5),)))))
    27
    """
    return new_size(dim, {})


def new_size(dim: Dim, counts: Counts) -> int:
    """Number of indices left of a dimension when each axis keeps `counts` units.

    >>> new_size((Axis(0, 3), Axis(1, 4)), {1: 2})
    6
    """
    size = 1
    for factor in dim:
        if isinstance(factor, Axis):
            size *= counts.get(factor.index, factor.size)
        else:
            size *= sum(new_size(part, counts) for part in factor.parts)
    return size


def kept_indices(dim: Dim, keep: Keep) -> Int64[Tensor, " kept"]:
    """Flat indices of a dimension that remain, int64 of shape [new size], ascending.

    >>> kept_indices((Axis(0, 2), Axis(1, 3)), {1: torch.tensor([0, 2])}).tolist()
    [0, 2, 3, 5]
    """
    if len(dim) == 1 and isinstance(dim[0], Axis) and dim[0].index in keep:
        return keep[dim[0].index]
    indices = torch.zeros(1, dtype=torch.int64)
    for factor in dim:
        if isinstance(factor, Axis):
            size = factor.size
            kept = keep.get(factor.index)
            inner = torch.arange(size) if kept is None else kept
        else:
            size, pieces = 0, []
            for part in factor.parts:
                pieces.append(kept_indices(part, keep) + size)
                size += dim_size(part)
            inner = torch.cat(pieces)
        # row-major: flat = outer * size + inner
        indices = (indices[:, None] * size + inner[None, :]).reshape(-1)
    return indices


def unit_rows(tensor: Tensor, tensor_dim: int, dim: Dim, axis: Axis) -> Iterator[Tensor]:
    """For each occurrence of `axis`: the elements that belong to its units, [units, elements].

    `dim` describes dimension `tensor_dim` of `tensor`. Only views until the last step: a factor
    is reached by splitting the dimension (outer, factor, inner), a part of a concatenation by
    narrowing.

    >>> rows, = unit_rows(torch.arange(6), 0, (Axis(0, 2), Axis(1, 3)), Axis(0, 2))
    >>> rows.tolist()
    [[0, 1, 2], [3, 4, 5]]
    """
    for path in _occurrences(dim).get(axis, ()):
        rows, at = tensor, tensor_dim
        for step in path:
            split = torch.unflatten(rows, at, (step.outer, step.size, step.inner))
            at += 1
            rows = split.narrow(at, step.start, step.length)
        yield rows.movedim(at, 0).reshape(axis.size, -1)


@dataclass(frozen=True, slots=True)
class _Step:
    """Split a dimension in (outer, size, inner), then take `length` indices of the middle one."""

    outer: int
    size: int
    inner: int
    start: int
    length: int


@lru_cache(maxsize=256)
def _occurrences(dim: Dim) -> Mapping[Axis, list[tuple[_Step, ...]]]:
    """For each axis of a dimension the ways to reach it, outermost first."""
    found: dict[Axis, list[tuple[_Step, ...]]] = {}
    sizes = [dim_size((factor,)) for factor in dim]
    for k, factor in enumerate(dim):
        outer, size, inner = math.prod(sizes[:k]), sizes[k], math.prod(sizes[k + 1 :])
        if isinstance(factor, Axis):
            found.setdefault(factor, []).append((_Step(outer, size, inner, 0, size),))
            continue
        start = 0
        for part in factor.parts:
            step = _Step(outer, size, inner, start, dim_size(part))
            for axis, paths in _occurrences(part).items():
                found.setdefault(axis, []).extend((step, *path) for path in paths)
            start += step.length
    return found


def axes_of(dim: Dim) -> Iterator[Axis]:
    """Every axis occurrence of a dimension, outermost first.

    >>> [axis.index for axis in axes_of((Axis(0, 2), Concat(((Axis(1, 2),), (Axis(0, 2),)))))]
    [0, 1, 0]
    """
    for factor in dim:
        if isinstance(factor, Axis):
            yield factor
        else:
            for part in factor.parts:
                yield from axes_of(part)


def dim_to_json(dim: Dim) -> list[Any]:
    """A dimension as JSON: an axis is ``[index, size]``, a concatenation ``{"concat": [...]}``."""
    return [
        [factor.index, factor.size]
        if isinstance(factor, Axis)
        else {"concat": [dim_to_json(part) for part in factor.parts]}
        for factor in dim
    ]


def dim_from_json(value: Sequence[Any]) -> Dim:
    """Inverse of `dim_to_json`."""
    return tuple(
        Concat(tuple(dim_from_json(part) for part in factor["concat"]))
        if isinstance(factor, dict)
        else Axis(int(factor[0]), int(factor[1]))
        for factor in value
    )
