"""How much of the model remains after each step of an iterative pruning, as pure functions.

A schedule maps progress in [0, 1] to the fraction that remains, from 1 to the target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType


def geometric(progress: float, *, target: float) -> float:
    """Every step keeps the same share of what is left.

    >>> [round(geometric(k / 2, target=0.25), 3) for k in range(3)]
    [1.0, 0.5, 0.25]
    """
    return float(target**progress)


def cubic(progress: float, *, target: float) -> float:
    """Much at first, when there is much to spare, and little at the end.

    Source: Zhu & Gupta 2017, eq. 1, arXiv 1710.01878, with sparsity 1 - remaining, from 0.

    >>> [round(cubic(k / 2, target=0.2), 3) for k in range(3)]
    [1.0, 0.3, 0.2]
    """
    return target + (1 - target) * (1 - progress) ** 3


Schedule = Callable[..., float]
REMAINING: Mapping[str, Schedule] = MappingProxyType({"geometric": geometric, "cubic": cubic})
