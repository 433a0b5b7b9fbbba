"""Global: one threshold over all groups; the lowest units go wherever they are.

Layers with many unimportant units become thinner than others. What counts as low across groups
depends on how the scores were normalised.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

ROUNDING = 1e-9
"""0.7 * 10 is a little less or more than 7 in floating point, and is meant to be 7."""


def wanted(scores: Mapping[str, Tensor], level: float) -> dict[str, int]:
    """The fraction ``level`` of all units goes, lowest scores first; ties go by position."""
    if not scores:
        return {}
    sizes = torch.tensor([len(s) for s in scores.values()])
    group_of_unit = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    ascending = torch.cat(list(scores.values())).argsort(stable=True)
    removed = ascending[: int(level * len(ascending) + ROUNDING)]
    gone = torch.bincount(group_of_unit[removed], minlength=len(sizes))
    return dict(zip(scores, (sizes - gone).tolist(), strict=True))
