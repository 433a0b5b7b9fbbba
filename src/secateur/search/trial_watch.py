"""Looks on while a trial recovers: gives it up when it has no prospect, or when time is over.

Optuna's pruners know one objective only. Here a trial is compared with those of the front at the
same part of their recovery, for the metric in the middle of a schedule is not that of its end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from secateur.core.atomic import write_text
from secateur.search.pareto import front
from secateur.search.trial import Trial, goals_of
from secateur.search.trial_task import Task


class OutOfTime(Exception):
    """The time of this call is over; the trial goes on in the next one."""


class Hopeless(Exception):
    """The trial cannot reach the front any more; the message says beside what."""


@dataclass
class Watch:
    """place: where the metric after the first part is kept, so that a resumed trial has it too.
    deadline: by `time.monotonic`. finished: the trials that ended so far. spared: never given up.
    """

    task: Task
    metric: Callable[[nn.Module], float]
    place: Path
    finished: Callable[[], Iterable[Trial]]
    deadline: float | None = None
    spared: bool = False
    costs: Mapping[str, float] = field(default_factory=dict)
    early: float | None = None

    def __post_init__(self) -> None:
        if self.place.exists():
            self.early = float(json.loads(self.place.read_text(encoding="utf-8")))

    def look(self, step: int, model: nn.Module) -> None:
        """After an optimizer step of the recovery, counted from 1. Raises: OutOfTime, Hopeless."""
        self.check_time()
        early = self.task.early
        if early is None or self.early is not None:
            return
        if step < max(1, int(self.task.steps * early.part)):
            return
        self.early = self.metric(model)
        write_text(self.place, json.dumps(self.early))
        if self.spared:
            return
        better = prospectless(self.early, self.costs, tuple(self.finished()), margin=early.margin)
        if better is not None:
            raise Hopeless(
                f"after {early.part:.0%} of the recovery the metric was {self.early:.4g}; trial "
                f"{better.number}, which costs no more, had {better.early:.4g} by then"
            )

    def check_time(self) -> None:
        """Raises: OutOfTime."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise OutOfTime


def prospectless(
    early: float, costs: Mapping[str, float], trials: Sequence[Trial], *, margin: float
) -> Trial | None:
    """A trial of the front that costs no more and was better by the margin at this point."""
    complete = [trial for trial in trials if trial.state == "complete"]
    best = front([trial.point for trial in complete], goals_of(tuple(costs)))
    for trial in (complete[index] for index in best):
        cheaper = all(trial.costs[name] <= cost for name, cost in costs.items())
        if cheaper and trial.early is not None and trial.early >= early + margin:
            return trial
    return None
