"""The outcome of comparing a cut model with the masked original."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Proof:
    """max_abs_error: largest difference of any output; max_rel_error: that over the largest
    magnitude of the same output; groups_checked: groups whose removal was compared by numbers;
    groups_corrected: those among them for which the reference takes norms, means and scales over
    what is kept, because removing is not zeroing there; groups_shape_only: groups where only
    shapes were compared; reasons: why, for each of the last two; module_calls: module outputs
    whose shapes matched the prediction."""

    max_abs_error: float
    max_rel_error: float
    groups_checked: int
    groups_shape_only: int
    dtype: str
    module_calls: int
    reasons: dict[str, str]
    groups_corrected: int = 0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
