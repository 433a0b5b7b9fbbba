"""The values of iterative pruning: what it is told, what it is given to call, what it returns."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.errors import BudgetError
from secateur.train.remaining import REMAINING


def count_parameters(model: nn.Module) -> float:
    """Parameters of a model, tied ones once."""
    return float(sum(parameter.numel() for parameter in model.parameters()))


@dataclass(frozen=True, slots=True)
class PruneStep:
    """How a model is made smaller.

    prune: from a model and the fraction of *its* cost that shall remain, a smaller model and the
    plan as JSON; it may change the model that it is given, which is a copy. A BudgetError from it
    counts as a step that was too large. rebuild: the smaller architecture from the larger model
    and such a plan, needed to resume from a run directory; weights are put in afterwards.
    cost: what `fraction` and the target are fractions of.
    """

    prune: Callable[[nn.Module, float], tuple[nn.Module, str]]
    rebuild: Callable[[nn.Module, str], nn.Module] | None = None
    cost: Callable[[nn.Module], float] = count_parameters


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a recovery is told. number: from 1, over all attempts. lr: the rate adjusted for it.
    remaining: fraction of the dense cost. folder: for its checkpoints, None without run_dir."""

    number: int
    lr: float
    remaining: float
    folder: Path | None


Recover = Callable[[nn.Module, Attempt], object]
"""Retrains a model in place. A `DivergedError` from it undoes the step, as a low metric does."""


@dataclass(frozen=True, slots=True)
class IterativeSettings:
    """target: fraction of the dense cost that shall remain. steps: into which the way is divided,
    along `schedule`, "geometric" or "cubic".

    floor, max_drop: lowest metric, absolute and as a drop from dense; both hold where both are
    given. lr: of the first step; each accepted step multiplies it by `lr_decay`, each attempt
    undone by `lr_retry` until the next accepted one. retries: halved steps after one that failed.
    minimum_step: smallest halved step worth trying, as a fraction of the dense cost. max_steps:
    attempts in all. time_limit_s: no step begins after so many seconds, resumed ones included.
    """

    target: float
    steps: int = 5
    schedule: str = "geometric"
    floor: float | None = None
    max_drop: float | None = None
    lr: float = 0.01
    lr_decay: float = 0.9
    lr_retry: float = 0.5
    retries: int = 3
    minimum_step: float = 0.005
    max_steps: int | None = None
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise ValueError(f"target is the fraction that remains, in (0, 1), not {self.target}")
        if self.schedule not in REMAINING:
            raise ValueError(
                f"unknown schedule {self.schedule!r}; there are: {', '.join(REMAINING)}"
            )
        if self.steps < 1 or self.retries < 0 or (self.max_steps or 1) < 1:
            raise ValueError("steps and max_steps must be at least 1 and retries at least 0")
        if min(self.lr, self.lr_decay, self.lr_retry) <= 0:
            raise ValueError("lr, lr_decay and lr_retry must be positive")
        if self.max_drop is not None and self.max_drop < 0:
            raise ValueError(f"max_drop must not be negative, as {self.max_drop} is")
        if not 0 < self.minimum_step <= 1 - self.target:
            raise ValueError(
                f"minimum_step {self.minimum_step} must be positive and at most the "
                f"{1 - self.target:g} that shall be removed in all"
            )

    def lowest_metric(self, dense: float) -> float | None:
        """The floor that holds for a dense model of metric `dense`, None without one.

        Raises: BudgetError when the dense model itself lies below it.

        >>> round(IterativeSettings(target=0.5, floor=0.9, max_drop=0.02).lowest_metric(0.95), 3)
        0.93
        """
        drop = None if self.max_drop is None else dense - self.max_drop
        bounds = [bound for bound in (self.floor, drop) if bound is not None]
        lowest = max(bounds, default=None)
        if lowest is not None and not dense >= lowest:
            raise BudgetError(
                f"the floor {lowest:g} is above the dense model's own metric of {dense:g}, so no "
                f"pruned model can be expected to hold it; use floor={dense:g} or less, "
                "max_drop=0.01, or train the dense model further"
            )
        return lowest


@dataclass(frozen=True, slots=True)
class IterativeStep:
    """One attempt. asked, remaining: fraction of the dense cost that was asked for and came out
    (None when the step could not be made). metric_pruned, metric: before and after recovery.
    note: why it was undone, empty when accepted."""

    number: int
    asked: float
    remaining: float | None
    cost: float | None
    metric_pruned: float | None
    metric: float | None
    lr: float
    accepted: bool
    note: str = ""
    seconds: float = field(default=0.0, compare=False)


@dataclass(frozen=True, slots=True)
class IterativeResult:
    """model: the smallest one that held the floor; the dense one when no step did. met: whether
    the target was reached. reason: why it ended, with how close it came. plans: JSON, in order,
    each for the model that the one before makes."""

    model: nn.Module
    met: bool
    reason: str
    remaining: float
    metric: float
    dense_metric: float
    floor: float | None
    plans: tuple[str, ...]
    history: tuple[IterativeStep, ...]

    def to_json(self) -> dict[str, Any]:
        """All but the model and the plans."""
        return {
            "met": self.met,
            "reason": self.reason,
            "remaining": self.remaining,
            "metric": self.metric,
            "dense_metric": self.dense_metric,
            "floor": self.floor,
            "history": [asdict(step) for step in self.history],
        }

    def to_jsonl(self) -> str:
        """One JSON object a line, one line an attempt."""
        return history_to_jsonl(self.history)


def history_to_jsonl(history: tuple[IterativeStep, ...] | list[IterativeStep]) -> str:
    """Attempts as JSON lines."""
    return "".join(json.dumps(asdict(step)) + "\n" for step in history)
