"""Who waits for whom: every rank tells the store what it is at, so that a time-out can say it.

Telling is off the way of the work: the rank notes what it is at in its own memory, and a thread
takes it to the store every few seconds. A process that is stopped or gone tells no more, which the
report says too.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

EVERY_S = 1.0
"""Between two tellings."""
SILENT_S = 5.0
"""A rank that has told nothing for so long is said to be silent: what it told last may be long
over. Shorter than any sensible time-out, after which the others report of it."""


@runtime_checkable
class Store(Protocol):
    """What is used of torch's stores."""

    def set(self, key: str, value: str) -> None: ...

    def get(self, key: str) -> bytes: ...

    def check(self, keys: list[str]) -> bool: ...


@dataclass(slots=True)
class Watch:
    """What one rank is at. waits: whether it waits for the others there. patience_s: how long a
    rank may tell nothing before those that wait for it give it up."""

    store: Store
    rank: int
    size: int
    at: str = "the start"
    waits: bool = False
    since: float = field(default_factory=time.time)
    patience_s: float = 600.0
    _stop: threading.Event = field(default_factory=threading.Event)

    def waits_(self, what: str) -> None:
        """From now on this rank waits for the others in `what`."""
        self.at, self.waits, self.since = what, True, time.time()

    def works_(self, after: str) -> None:
        """From now on it is at work, `after` was agreed on."""
        self.at, self.waits, self.since = after, False, time.time()

    def start_(self) -> None:
        """Tell from now on, until `stop_`."""
        threading.Thread(target=self._tell, name="secateur-watch", daemon=True).start()

    def stop_(self) -> None:
        """Tell no more."""
        self._stop.set()

    def report(self) -> str:
        """What every rank is at, in one sentence."""
        self._set()
        told = [self._told(rank) for rank in range(self.size)]
        return "; ".join(f"rank {rank} {words}" for rank, words in enumerate(told))

    def _tell(self) -> None:
        while not self._stop.wait(EVERY_S):
            try:
                self._set()
            except RuntimeError:  # the store is gone, and with it whoever would read it
                return

    def _set(self) -> None:
        body = [self.at, self.waits, self.since, time.time()]
        self.store.set(f"at/{self.rank}", json.dumps(body))

    def _told(self, rank: int) -> str:
        key = f"at/{rank}"
        if not self.store.check([key]):
            return "has not begun"
        at, waits, since, heard = json.loads(self.store.get(key))
        now = time.time()
        if now - heard > SILENT_S:
            return f"has been silent for {now - heard:.0f} s, last {_doing(at, waits)}"
        return f"is {_doing(at, waits)} for {now - since:.0f} s"


def _doing(at: str, waits: bool) -> str:
    """
    >>> _doing("the plan", True), _doing("the plan", False)
    ('waiting for the others in the plan', 'at work after the plan')
    """
    return f"waiting for the others in {at}" if waits else f"at work after {at}"
