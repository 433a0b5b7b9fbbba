"""Calibration data that ranks share: each runs batches of its own, whole ones.

Every rank is given the same data, and takes its part by size, the largest batches first. The first
quarter of it tells how fast each rank is; where that differs the rest is split again. What is made
of the batches must not depend on who ran them: see `exact_sums`.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.core.errors import ScoreError
from secateur.core.world import World

UNEVEN = 1.2
"""The fastest rank over the slowest: from here on the rest is split by speed."""
_LEGS = 4


@dataclass(frozen=True)
class Numbered:
    """Batches with their numbers in the whole data. is_share: others have the rest, so that there
    may be none."""

    pairs: Iterable[tuple[int, Any]]
    is_share: bool = False

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.pairs)


class Shares:
    """The whole data's batches, and which of them this rank runs. Every rank has to walk through
    its own, and to the end."""

    def __init__(self, batches: Sequence[Any], sizes: Sequence[float], world: World) -> None:
        self.batches = batches
        self._sizes, self._world = sizes, world
        self._own: list[int] | None = None
        self._chosen: Sequence[int] = range(len(batches))

    def __len__(self) -> int:
        return len(self._chosen)

    def by_speed(self, speeds: Sequence[float]) -> list[tuple[int, Any]]:
        """This rank's batches at once, with their numbers, when ranks are known to be so fast."""
        if max(speeds) <= UNEVEN * min(speeds):
            speeds = [1.0] * len(speeds)
        return [(k, self.batches[k]) for k in self._split(self._chosen, speeds)[self._world.rank]]

    def only(self, numbers: Sequence[int]) -> Shares:
        """Some of the batches, shared anew."""
        some = Shares(self.batches, self._sizes, self._world)
        some._chosen = numbers
        return some

    def __iter__(self) -> Iterator[Any]:
        return (batch for _, batch in self.pairs())

    @property
    def first(self) -> Any:
        """The first batch of the whole data, or of those chosen; every rank has it."""
        return self.batches[self._chosen[0]]

    def pairs(self) -> Iterator[tuple[int, Any]]:
        """This rank's batches with their numbers."""
        if self._own is not None:
            yield from ((number, self.batches[number]) for number in self._own)
            return
        evenly = [1.0] * self._world.size
        parts = self._split(self._chosen, evenly)
        begun = [part[: len(part) // _LEGS] for part in parts]
        start = time.perf_counter()
        for number in (own := begun[self._world.rank]):
            yield number, self.batches[number]
        if all(begun):
            seconds = self._world.gather(time.perf_counter() - start, what="speeds of ranks")
            done = [sum(self._sizes[k] for k in part) for part in begun]
            speeds = [size / max(s, 1e-9) for size, s in zip(done, seconds, strict=True)]
            if max(speeds) > UNEVEN * min(speeds):
                left = sorted(set(self._chosen) - {k for part in begun for k in part})
                parts = [a + b for a, b in zip(begun, self._split(left, speeds), strict=True)]
        for number in parts[self._world.rank][len(own) :]:
            yield number, self.batches[number]
        self._own = parts[self._world.rank]

    def _split(self, numbers: Sequence[int], speeds: Sequence[float]) -> list[list[int]]:
        parts = split([self._sizes[k] for k in numbers], speeds)
        return [[numbers[k] for k in part] for part in parts]


def split(costs: Sequence[float], speeds: Sequence[float]) -> list[list[int]]:
    """What each rank does: the costliest first, each by the rank that would be done with it first.

    >>> split([1.0, 1.0, 4.0, 2.0], [1.0, 1.0])
    [[2], [3, 0, 1]]
    """
    parts: list[list[int]] = [[] for _ in speeds]
    loads = [0.0] * len(speeds)
    for k in sorted(range(len(costs)), key=lambda k: (-costs[k], k)):
        ends = [(load + costs[k]) / speed for load, speed in zip(loads, speeds, strict=True)]
        rank = ends.index(min(ends))
        parts[rank].append(k)
        loads[rank] += costs[k]
    return parts


def shared(data: Iterable[Any], world: World) -> Iterable[Any]:
    """The data for this world: of one process as they are, else `Shares`.

    Held in memory unless they are a sequence. Raises: ScoreError, on every rank, when there is no
    batch, or ranks were given different data.
    """
    if world.size == 1 or isinstance(data, Shares):
        return data
    batches = repeatable(data)
    assert isinstance(batches, Sequence)
    about = [_about(batch) for batch in batches]
    _check_same(world.gather([one[:2] for one in about], what="calibration data"))
    return Shares(batches, [one[2] for one in about], world)


def repeatable(data: Iterable[Any]) -> Sequence[Any] | Shares:
    """Data that can be walked through twice."""
    return data if isinstance(data, (Sequence, Shares)) else list(data)


def first_of(data: Iterable[Any]) -> list[Any]:
    """The first batch of the whole data, if there is one: every rank has it."""
    return [data.first] if isinstance(data, Shares) else list(islice(data, 1))


def numbered(data: Iterable[Any]) -> Numbered:
    """The batches that this process is to run, with their numbers."""
    if isinstance(data, Numbered):
        return data
    return Numbered(data.pairs(), True) if isinstance(data, Shares) else Numbered(enumerate(data))


def no_batch() -> ScoreError:
    """The error for data without any batch."""
    return ScoreError("the calibration data holds no batch; pass a loader that is not empty")


def plain(batch: Any) -> Any:
    """A tokenizer's own mapping becomes a plain dict, which pytree can walk."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def _about(batch: Any) -> tuple[str, int, float]:
    """Shapes, a checksum of all values, and how many there are."""
    shapes, check, size = [], 0, 0
    for leaf in pytree.tree_leaves(plain(batch)):
        if isinstance(leaf, Tensor):
            shapes.append("x".join(map(str, leaf.shape)) or "number")
            size += leaf.numel()
            dense = leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            check = zlib.crc32(dense.numpy().tobytes(), check)
        elif isinstance(leaf, (bool, int, float, str)):
            check = zlib.crc32(repr(leaf).encode(), check)
    return ", ".join(shapes), check, float(max(size, 1))


def _check_same(found: Sequence[Sequence[Any]]) -> None:
    expected = found[0]
    same = (
        "; pass the same batches in the same order on every rank, which takes its part of them "
        "itself: no DistributedSampler, and a loader that shuffles needs "
        "generator=torch.Generator().manual_seed(0)"
    )
    for rank, own in enumerate(found):
        if len(own) != len(expected):
            raise ScoreError(
                f"rank 0 was given {len(expected)} calibration batches and rank {rank} "
                f"{len(own)}{same}"
            )
        for number, (a, b) in enumerate(zip(expected, own, strict=True)):
            if a != b:
                what = f"({a[0]}) and ({b[0]})" if a[0] != b[0] else "of other values"
                raise ScoreError(
                    f"calibration batch {number} is {what} on ranks 0 and {rank}{same}"
                )
    if not expected:
        raise no_batch()
