"""Uniform: the same fraction of every group goes.

The network keeps its proportions; scores decide only which units go. The baseline for every other
selector, and the best choice when nothing is known about the layers' sensitivity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from torch import Tensor

ROUNDING = 1e-9
"""0.7 * 10 is a little more than 7 in floating point, and is meant to be 7."""


def ladder(scores: Mapping[str, Tensor]) -> Callable[[float], dict[str, int]]:
    """Each group keeps the fraction ``1 - level`` of its units, rounded up."""
    sizes = {id: len(values) for id, values in scores.items()}
    return lambda level: {
        id: math.ceil(size * (1 - level) - ROUNDING) for id, size in sizes.items()
    }
