"""A world whose ranks are threads of one process, and models of which each holds a part.

Sums go over the ranks in their order. What a rank sends is counted. A rank that fails takes the
others down with it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from threading import Barrier, BrokenBarrierError
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secateur.core.shards import Part, Shard

T = TypeVar("T")
Split = tuple[int, ...]
"""Of a dimension: at which indices each rank's part begins, and the end."""


@dataclass
class Meeting:
    """What the threads have in common. words: what was agreed on, in order, by rank."""

    size: int
    table: list[Any] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.barrier = Barrier(self.size)
        self.table = [None] * self.size
        self.sent = [0] * self.size
        self.words = [[] for _ in range(self.size)]


@dataclass
class ThreadWorld:
    """parts_of: what this rank holds of a tensor by name; all of it, counted by rank 0, without."""

    rank: int
    meeting: Meeting
    parts_of: Callable[[str, Tensor, int], Part] | None = None

    @property
    def size(self) -> int:
        return self.meeting.size

    def _exchanged(self, value: T, what: str) -> list[T]:
        self.meeting.words[self.rank].append(what)
        self.meeting.table[self.rank] = value
        self.meeting.barrier.wait(60)
        found = list(self.meeting.table)
        self.meeting.barrier.wait(60)
        assert len({words[-1] for words in self.meeting.words}) == 1, self.meeting.words
        self.meeting.barrier.wait(60)
        return found

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        self.meeting.sent[self.rank] += sum(t.numel() * t.element_size() for t in tensors)
        everyone = self._exchanged([t.clone() for t in tensors], what)
        assert len({tuple((t.shape, t.dtype) for t in own) for own in everyone}) == 1
        for tensor, *parts in zip(tensors, *everyone, strict=True):
            total = torch.zeros_like(tensor)
            for part in parts:
                total += part
            tensor.copy_(total)

    def gather(self, value: T, *, what: str) -> list[T]:
        text = json.dumps(value)
        self.meeting.sent[self.rank] += len(text)
        return [json.loads(found) for found in self._exchanged(text, what)]

    def first(self, value: T, *, what: str) -> T:
        return self.gather(value, what=what)[0]

    def wait(self, *, what: str) -> None:
        self.gather(None, what=what)

    def settle_(self, model: nn.Module) -> None:
        """Nothing is ever brought together."""

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Part]:
        return {name: self._part(name, tensor) for name, tensor in tensors.items()}

    def local(self, tensor: Tensor) -> Tensor:
        return tensor.detach()

    def _part(self, name: str, tensor: Tensor) -> Part:
        if self.parts_of is None:
            return Part(
                tensor.detach(), Shard.whole(tuple(tensor.shape)), self.rank == 0, self.size
            )
        return self.parts_of(name, tensor, self.rank)


def on_ranks(
    size: int,
    work: Callable[[ThreadWorld], T],
    parts_of: Callable[[str, Tensor, int], Part] | None = None,
) -> tuple[list[T], Meeting]:
    """What each rank's work gives. Raises: what the lowest rank that failed by itself raised."""
    meeting = Meeting(size)

    def rank(k: int) -> T:
        try:
            return work(ThreadWorld(k, meeting, parts_of))
        except BaseException:
            meeting.barrier.abort()
            raise

    with ThreadPoolExecutor(size) as pool:
        futures = [pool.submit(rank, k) for k in range(size)]
    failures = [f.exception() for f in futures if f.exception() is not None]
    for failure in failures:
        if failure is not None and not isinstance(failure, BrokenBarrierError):
            raise failure
    assert not failures
    return [f.result() for f in futures], meeting


def boxes(shape: tuple[int, ...], splits: Sequence[Split]) -> list[Shard]:
    """The parts of a tensor whose first dimensions are split, the last split fastest."""
    found = [Shard.whole(shape)]
    for dim, split in enumerate(splits):
        found = [
            Shard(
                shape,
                tuple(first if k == dim else s for k, s in enumerate(box.start)),
                tuple(last - first if k == dim else s for k, s in enumerate(box.size)),
            )
            for box in found
            for first, last in pairwise(split)
        ]
    return found


def own_part(tensor: Tensor, box: Shard) -> Tensor:
    """The elements of a box: a copy, contiguous."""
    for dim, (start, size) in enumerate(zip(box.start, box.size, strict=True)):
        tensor = tensor.narrow(dim, start, size)
    return tensor.detach().clone(memory_format=torch.contiguous_format)


def put_together(parts: Sequence[Tensor], found: Sequence[Shard]) -> Tensor:
    """The whole tensor."""
    whole = torch.zeros(found[0].shape, dtype=parts[0].dtype)
    for part, box in zip(parts, found, strict=True):
        into = whole
        for dim, (start, size) in enumerate(zip(box.start, box.size, strict=True)):
            into = into.narrow(dim, start, size)
        into.copy_(part)
    return whole


def copies(model: nn.Module, count: int) -> list[nn.Module]:
    """One for each rank."""
    return [copy.deepcopy(model) for _ in range(count)]
