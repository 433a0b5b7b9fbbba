"""A world of threads in one process: what many ranks compute, without starting any process.

Backward passes on the CPU run in the thread that asks for them, so autograd meets too.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
SECONDS = 60.0


@dataclass
class Meeting:
    """What the threads share. sent: bytes that rank 0 gave to sums. moved: elements swapped."""

    size: int
    sent: int = 0
    moved: int = 0
    barrier: threading.Barrier = field(init=False)
    slots: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=SECONDS)
        self.slots = [None] * self.size


@dataclass
class ThreadWorld:
    """The world of one of the threads."""

    rank: int
    meeting: Meeting

    @property
    def size(self) -> int:
        return self.meeting.size

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        for tensor in tensors:
            if self.rank == 0:
                self.meeting.sent += tensor.numel() * tensor.element_size()
            parts = self._exchange(tensor.detach().clone())
            total = parts[0].clone()
            for part in parts[1:]:
                total += part
            tensor.copy_(total)

    def gather(self, value: T, *, what: str) -> list[T]:
        return copy.deepcopy(self._exchange(value))

    def first(self, value: T, *, what: str) -> T:
        return self.gather(value, what=what)[0]

    def wait(self, *, what: str) -> None:
        self._exchange(None)

    def swap(
        self, sent: Sequence[Tensor | None], came: Sequence[Tensor | None], *, what: str
    ) -> None:
        own = [None if t is None else t.clone() for t in sent]
        self.meeting.moved += sum(t.numel() for t in own if t is not None)
        for rank, others in enumerate(self._exchange(own)):
            given, place = others[self.rank], came[rank]
            assert (given is None) == (place is None), what
            if given is not None and place is not None:
                place.copy_(given)

    def _exchange(self, value: Any) -> list[Any]:
        self.meeting.slots[self.rank] = value
        self.meeting.barrier.wait()
        found = list(self.meeting.slots)
        self.meeting.barrier.wait()
        return found


def on_ranks(size: int, work: Callable[[ThreadWorld], T]) -> tuple[list[T], int]:
    """What `work` returns on each rank, and the bytes that a rank gave to sums.

    Raises: what the first rank that failed raised.
    """
    meeting = Meeting(size)
    results: list[Any] = [None] * size
    errors: list[BaseException] = []

    def run(rank: int) -> None:
        try:
            results[rank] = work(ThreadWorld(rank, meeting))
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next(
            (e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0]
        )
    return results, meeting.sent
