"""The outcome of comparing a cut model with the masked original."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Proof:
    """max_abs_error: largest difference of any output; max_rel_error: that over the largest
    magnitude of the same output; groups_checked: groups whose removal was compared by numbers;
    corrected: those among them for which removing is not zeroing, each with the reason; the
    reference took norms, means and scales over what is kept there; groups_shape_only: groups
    where only shapes were compared; reasons: why, for each of those; module_calls: module outputs
    whose shapes matched the prediction; blocks_removed: residual blocks that the reference passed
    by."""

    max_abs_error: float
    max_rel_error: float
    groups_checked: int
    groups_shape_only: int
    dtype: str
    module_calls: int
    reasons: dict[str, str]
    corrected: dict[str, str] = field(default_factory=dict)
    blocks_removed: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
