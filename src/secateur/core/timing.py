"""How long ranks wait for each other: a world that keeps the time, and what it found.

What scores and fits tells the others that it has come before numbers are added up, so that waiting
and sending are two figures. The share of time that a rank waits is what a split of the work is
judged by.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from secateur.core.world import World

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one rank: seconds since the clock started, seconds until the others had come and seconds
    in sums, by what was agreed on, and the bytes that went into sums.

    >>> timing = Timing(0, 4.0, {"scores": 0.5}, {"scores": 0.1, "means": 0.1}, 800)
    >>> timing.idle, round(timing.sending, 6)
    (0.125, 0.05)
    """

    rank: int
    seconds: float
    waited_s: Mapping[str, float]
    sent_s: Mapping[str, float]
    sent_bytes: int

    @property
    def idle(self) -> float:
        """The share of the time that the rank waited for others."""
        return sum(self.waited_s.values()) / self.seconds if self.seconds else 0.0

    @property
    def sending(self) -> float:
        """The share of the time that the rank spent in sums."""
        return sum(self.sent_s.values()) / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Timed:
    """A world that keeps the time of another one: ``timed = Timed(world)``, ``score(..., world=
    timed)``, ``timed.timings()``.

    >>> from secateur.core.world import ALONE
    >>> timed = Timed(ALONE)
    >>> timed.gather("a", what="letters"), list(timed.timing().waited_s)
    (['a'], ['letters'])
    """

    world: World
    _waited_s: dict[str, float] = field(default_factory=dict)
    _sent_s: dict[str, float] = field(default_factory=dict)
    _sent_bytes: int = 0
    _started: float = field(default_factory=time.perf_counter)

    @property
    def rank(self) -> int:
        """Of the other world."""
        return self.world.rank

    @property
    def size(self) -> int:
        """Of the other world."""
        return self.world.size

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        """See `World`."""
        self._sent_bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        with _added(self._sent_s, what):
            self.world.sum_(tensors, what=what)

    def gather(self, value: T, *, what: str) -> list[T]:
        """See `World`."""
        with _added(self._waited_s, what):
            return self.world.gather(value, what=what)

    def first(self, value: T, *, what: str) -> T:
        """See `World`."""
        with _added(self._waited_s, what):
            return self.world.first(value, what=what)

    def wait(self, *, what: str) -> None:
        """See `World`."""
        with _added(self._waited_s, what):
            self.world.wait(what=what)

    def timing(self) -> Timing:
        """What was measured on this rank so far."""
        seconds = time.perf_counter() - self._started
        return Timing(
            self.rank, seconds, dict(self._waited_s), dict(self._sent_s), self._sent_bytes
        )

    def timings(self) -> list[Timing]:
        """What was measured on every rank so far, the same list on each of them."""
        own: dict[str, Any] = asdict(self.timing())
        return [Timing(**one) for one in self.world.gather(own, what="timings")]


@contextmanager
def _added(seconds: dict[str, float], what: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[what] = seconds.get(what, 0.0) + time.perf_counter() - start
