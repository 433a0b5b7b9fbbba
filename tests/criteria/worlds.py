"""Worlds made of threads: many ranks in one process, for what needs no real processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")
SECONDS = 30


@dataclass
class _Place:
    """Where the threads meet."""

    size: int
    slots: list[Any]
    barrier: threading.Barrier
    said: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ThreadWorld:
    """One thread's world. A thread that does not come in `SECONDS` breaks it for all."""

    rank: int
    place: _Place

    @property
    def size(self) -> int:
        return self.place.size

    def _exchanged(self, value: Any) -> list[Any]:
        self.place.slots[self.rank] = value
        self.place.barrier.wait(SECONDS)
        found = list(self.place.slots)
        self.place.barrier.wait(SECONDS)
        return found

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        found = self._exchanged([tensor.clone() for tensor in tensors])
        assert len({len(one) for one in found}) == 1, f"{what}: ranks sum different tensors"
        for k, tensor in enumerate(tensors):
            tensor.copy_(sum((one[k] for one in found[1:]), found[0][k].clone()))

    def gather(self, value: T, *, what: str) -> list[T]:
        self.place.said.append(what)
        return [json.loads(text) for text in self._exchanged(json.dumps(value))]

    def first(self, value: T, *, what: str) -> T:
        return self.gather(value, what=what)[0]

    def wait(self, *, what: str) -> None:
        self.gather(None, what=what)


def on_ranks(size: int, work: Callable[[ThreadWorld], T]) -> list[T | Exception]:
    """What `work` returns or raises on each rank."""
    place = _Place(size, [None] * size, threading.Barrier(size))

    def one(rank: int) -> T | Exception:
        torch.set_num_threads(1)
        try:
            return work(ThreadWorld(rank, place))
        except Exception as error:
            return error

    # what ranks switch on and off is the process's: threads may leave it as it was in between
    with _flags_kept(), ThreadPoolExecutor(size) as pool:
        return list(pool.map(one, range(size)))


@contextmanager
def _flags_kept() -> Iterator[None]:
    kernels = torch.backends.cuda
    flash, memory = kernels.flash_sdp_enabled(), kernels.mem_efficient_sdp_enabled()
    math, fast = kernels.math_sdp_enabled(), torch.backends.mha.get_fastpath_enabled()
    fused: bool = torch.backends.mkldnn.enabled  # type: ignore[assignment]
    try:
        yield
    finally:
        kernels.enable_flash_sdp(flash)
        kernels.enable_mem_efficient_sdp(memory)
        kernels.enable_math_sdp(math)
        torch.backends.mha.set_fastpath_enabled(fast)
        torch.backends.mkldnn.set_flags(_enabled=fused, _fp32_precision=None)
