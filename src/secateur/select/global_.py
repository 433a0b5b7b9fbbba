"""Global: one threshold over all groups; the lowest units go wherever they are.

Layers with many unimportant units become thinner than others. What counts as low across groups
depends on how the scores were normalised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from torch import Tensor

ROUNDING = 1e-9
"""0.7 * 10 is a little less or more than 7 in floating point, and is meant to be 7."""


def ladder(scores: Mapping[str, Tensor]) -> Callable[[float], dict[str, int]]:
    """The fraction ``level`` of all units goes, lowest scores first; ties go by position."""
    sizes = np.array([len(values) for values in scores.values()], dtype=np.int64)
    values = np.concatenate([np.zeros(0), *(values.numpy() for values in scores.values())])
    owner = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(values, kind="stable")]

    def wanted(level: float) -> dict[str, int]:
        removed = owner[: int(level * len(owner) + ROUNDING)]
        kept = sizes - np.bincount(removed, minlength=len(sizes))
        return dict(zip(scores, kept.tolist(), strict=True))

    return wanted
