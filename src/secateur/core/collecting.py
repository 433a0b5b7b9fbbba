"""Steps that make many small values and no garbage run without the cyclic garbage collector.

A graph of a large model is a hundred thousand small objects. Python's collector would look through
all that the process holds, torch included, several times while they are made: a fifth of a second
each, and nothing to free. Reference counts free the rest as ever.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """The collector rests while the block runs; one that was off stays off.

    >>> with uncollected():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
