"""What can be said to `secateur auto`: model, data, target and floor; the rest has defaults."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from secateur.cli.flags import flag, required, section
from secateur.cli.settings import DATA, MODEL, Serving, Source
from secateur.core.budget import Budget
from secateur.core.lookup import find
from secateur.search.auto_clock import seconds_of
from secateur.search.auto_values import ADAPT
from secateur.select.constraints import Constraints

RULES = {
    "keep_modules": "pattern of modules whose shape stays (may be repeated)",
    "groups": "pattern of the only groups to prune (may be repeated)",
    "min_units": "no group gets smaller than this",
    "multiple_of": "of this the widths of layers are multiples, or a group stays whole",
}
PER_CENT = 100.0
RAW = ("output_error", "taylor")
"""Criteria whose scores are of one measure for all groups."""


@dataclass(frozen=True, kw_only=True)
class AutoRunSettings(Serving, Source):
    """max_drop and floor are in points of accuracy, of a hundred."""

    model: str = required(MODEL)
    data: str = required(DATA)
    target: str = required('at most what may remain: "latency=40%", "macs=50%,size=2MB"')
    max_drop: float | None = flag(None, "points of accuracy that may be lost, for example 0.5")
    floor: float | None = flag(None, "lowest accuracy in per cent, for example 92.5")
    time_limit: str | None = flag(None, "of all work, interrupted runs included, for example 20m")
    out: Path = flag(Path("runs/auto"), "the run directory", short="-o")
    steps: int = flag(3, "cuts into which the way is divided")
    epochs: int = flag(1, "of the recovery after a cut")
    long_epochs: int = flag(4, "after the last cut, and where a shorter recovery was not enough")
    lr: float | None = flag(None, "the highest learning rate, by default found after each cut")
    optimizer: str = flag("adamw", "which optimizer")
    precision: str = flag("float32", "of the recoveries' computation, under autocast")
    distil: bool = flag(True, "follow the dense model in recoveries")
    batch_size: int = flag(64, "of training and evaluation")
    criterion: str = flag("output_error", "what makes a unit important")
    selector: str = flag(ADAPT, "how what goes is spread over the groups; adapt tries it out")
    calibration: int = flag(1024, "samples of the training data for scores and fitted weights")
    select: Constraints = section(Constraints, help=RULES)
    device: str | None = flag(None, "where to compute, for example cuda")
    huggingface: bool = flag(False, "cut only so that plain from_pretrained loads the result")
    seed: int = flag(0, "of every random choice")

    def __post_init__(self) -> None:
        Budget.parse(self.target)
        seconds_of(self.time_limit)
        find("secateur.criteria", self.criterion, kind="criterion")
        if self.selector != ADAPT:
            find("secateur.select", self.selector, kind="selector")
        if self.max_drop is None and self.floor is None:
            raise ValueError(
                "say how much accuracy may be lost: --max-drop 0.5 for half a point, or --floor "
                "92.5 for the lowest that is good enough"
            )
        if self.floor is not None and not 1.0 < self.floor <= PER_CENT:
            raise ValueError(f"floor {self.floor:g} is in per cent; write for example 92.5")
        if self.max_drop is not None and not 0.0 <= self.max_drop <= PER_CENT:
            raise ValueError(f"max_drop {self.max_drop:g} is in points, for example 0.5")

    @property
    def normalise(self) -> Literal["none", "mean"]:
        """What scores are divided by before groups are compared."""
        return "none" if self.criterion in RAW else "mean"

    @property
    def limits(self) -> dict[str, Any]:
        """What `auto` is told of target and floor, accuracies as shares of one."""
        return {
            "target": self.target,
            "max_drop": None if self.max_drop is None else self.max_drop / PER_CENT,
            "floor": None if self.floor is None else self.floor / PER_CENT,
            "time_limit": self.time_limit,
        }
