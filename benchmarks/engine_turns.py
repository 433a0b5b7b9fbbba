"""Loops that take turns step by step in one process, so that what disturbs one disturbs the others.

A loop is a function that calls `after_step()` when a step is done. Each runs in a thread of its
own, and only the one whose turn it is goes on: a round is one step of every loop, and loops are
compared by the differences of their steps within rounds.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Loop = Callable[[Callable[[], None]], object]
SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Step:
    """What one step took. wall_s: by the clock. process_s: processor time of all threads. own_s:
    processor time of the loop's thread alone; on an idle core it waited for the rest."""

    wall_s: float
    process_s: float
    own_s: float


@dataclass(slots=True)
class Turns:
    """The steps of each loop, by its name; all loops take equally many."""

    names: list[str]
    steps: dict[str, list[Step]] = field(default_factory=dict)
    errors: list[BaseException] = field(default_factory=list)
    _turn: int = 0
    _ended: set[str] = field(default_factory=set)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def wait_(self, name: str) -> None:
        """Until it is this loop's turn."""
        with self._changed:
            mine = self._changed.wait_for(
                lambda: bool(self.errors) or self.names[self._turn] == name, SECONDS
            )
            if self.errors or not mine:
                raise RuntimeError(f"{name}: another loop failed or did not hand over")

    def hand_on_(self, *, ended: str | None = None) -> None:
        """To the next loop that goes on."""
        with self._changed:
            if ended is not None:
                self._ended.add(ended)
            for _ in self.names:
                self._turn = (self._turn + 1) % len(self.names)
                if self.names[self._turn] not in self._ended:
                    break
            self._changed.notify_all()

    def run_(self, name: str, loop: Loop) -> None:
        """A whole loop, from its first turn to its end."""
        started = [_now()]

        def after_step() -> None:
            now = _now()
            self.steps[name].append(Step(*(b - a for a, b in zip(started[0], now, strict=True))))
            self.hand_on_()
            self.wait_(name)
            started[0] = _now()

        try:
            self.wait_(name)
            started[0] = _now()
            loop(after_step)
        except BaseException as error:
            self.errors.append(error)
        finally:
            self.hand_on_(ended=name)


def in_turns(loops: Mapping[str, Loop], *, warm: int) -> dict[str, list[Step]]:
    """The steps of every loop but its first `warm`. Raises: what the first loop that failed did."""
    turns = Turns(list(loops), {name: [] for name in loops})
    threads = [
        threading.Thread(target=turns.run_, args=(name, loop)) for name, loop in loops.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if turns.errors:
        raise turns.errors[0]
    return {name: steps[warm:] for name, steps in turns.steps.items()}


def added(steps: list[Step], peer: list[Step]) -> tuple[float, float]:
    """Milliseconds of processor time that a step takes more than its peer's: the median of the
    differences within rounds, and half the width of the interval in which that lies with 95 %."""
    pairs = zip(steps, peer, strict=True)
    found = sorted(1000 * (own.process_s - other.process_s) for own, other in pairs)
    half = 0.98 * len(found) ** 0.5  # ranks of the interval around the median's
    low = found[max(0, int(len(found) / 2 - half))]
    high = found[min(len(found) - 1, int(len(found) / 2 + half))]
    return statistics.median(found), (high - low) / 2


def median_ms(steps: list[Step], clock: str) -> float:
    """Of the field of `Step` that is named."""
    return 1000 * statistics.median(getattr(step, clock) for step in steps)


def _now() -> tuple[float, float, float]:
    return time.perf_counter(), time.process_time(), time.thread_time()
