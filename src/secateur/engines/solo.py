"""Work of rank 0 alone, while the others wait as long as it takes.

A wait of the process group ends after its time-out. Measuring, proving and reporting may take
longer, so here the others ask the store instead, now and then, and nothing strikes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from secateur.core.world import World
from secateur.engines.process_group import ProcessGroup

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
    pause = ASK_S
    while not watch.store.check([key]):
        time.sleep(pause)
        pause = min(2 * pause, 20 * ASK_S)
    watch.works_(what)
    return None
