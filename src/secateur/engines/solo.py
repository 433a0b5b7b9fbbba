"""Work of rank 0 alone, while the others wait as long as it takes.

A wait of the process group ends after its time-out. Measuring, proving and reporting may take
longer, so here the others ask the store instead, now and then, and nothing strikes as long as rank
0 tells what it is at. Where it has told nothing for a whole time-out it is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from secateur.core.world import World
from secateur.engines.failures import LostError
from secateur.engines.process_group import ProcessGroup
from secateur.engines.waiting import Watch

T = TypeVar("T")
ASK_S = 0.05
"""Between two questions at first; it grows to twenty times that."""


def on_first(world: World, work: Callable[[], T], *, what: str) -> T | None:
    """What `work` gives on rank 0; None on the others, when it is done there.

    >>> from secateur.core.world import ALONE
    >>> on_first(ALONE, lambda: 3, what="a number")
    3
    """
    if world.size == 1:
        return work()
    assert isinstance(world, ProcessGroup) and world.watch is not None
    watch = world.watch
    key = f"solo/{world.solos_()}"
    if world.rank == 0:
        watch.works_(f"the start of {what}")
        value = work()
        watch.store.set(key, "done")
        return value
    watch.waits_(what)
    _wait_for(key, watch, what)
    watch.works_(what)
    return None


def _wait_for(key: str, watch: Watch, what: str) -> None:
    """Until the key is there. Raises: LostError when rank 0 tells no more."""
    pause, told, heard = ASK_S, b"", time.monotonic()
    while not watch.store.check([key]):
        time.sleep(pause)
        pause = min(2 * pause, 20 * ASK_S)
        there = watch.store.check(["at/0"])
        new = watch.store.get("at/0") if there else b""
        if new != told:
            told, heard = new, time.monotonic()
        elif time.monotonic() - heard > watch.patience_s:
            raise LostError(f"rank 0 has told nothing for {watch.patience_s:g} s while at {what}")
