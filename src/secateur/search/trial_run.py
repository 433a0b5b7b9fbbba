"""One trial from its choice to its figures: plan, cut, fit, recover, judge.

Whatever fails is a failed trial with its reason and not the end of the search; only the end of the
call's time goes through.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.plan import Plan
from secateur.cut import cut
from secateur.search.study_space import ITERATIVE, Choice, Space
from secateur.search.trial import Trial
from secateur.search.trial_ground import Ground
from secateur.search.trial_schedules import Making
from secateur.search.trial_watch import Hopeless, OutOfTime, Watch


@dataclass(frozen=True)
class Job:
    """A trial to be run. folder: its own, for what it needs to go on if it is stopped. plan: where
    its plan is kept."""

    number: int
    choice: Choice
    line: bool
    folder: Path
    plan: Path


@dataclass(frozen=True)
class Outcome:
    """What came of a trial; model and plan of a complete one."""

    trial: Trial
    model: nn.Module | None = None
    plan: Plan | None = None


def run_trial(job: Job, ground: Ground, watch: Watch, *, space: Space) -> Outcome:
    """Run a trial, or go on with it. Raises: OutOfTime."""
    started = time.monotonic()
    known: dict[str, Any] = {"number": job.number, "choice": job.choice, "line": job.line}

    def ended(**more: Any) -> Trial:
        seconds = round(time.monotonic() - started, 3)
        return Trial(**{**known, "early": watch.early, "seconds": seconds, **more})

    try:
        first = once(job.folder / "plan.json", make=lambda: ground.plan(job.choice))
        expected = _judged(ground, job.choice, first)
        watch.costs = ground.shares(expected)
        known |= _figures(ground, expected)
        expected.save(job.plan)
        model, plan = _made(job, ground, watch, expected, steps=space.steps)
        finished = ground.task.precisions[job.choice.precision](model)
        if job.choice.schedule == ITERATIVE:
            plan = ground.costed(plan, finished)
            plan.save(job.plan)
        metric = ground.metric(finished)
        known |= _figures(ground, plan)
        if math.isnan(metric):
            return Outcome(ended(state="failed", reason="the metric is nan"))
        return Outcome(ended(state="complete", metric=metric), model, plan)
    except Hopeless as verdict:
        return Outcome(ended(state="pruned", reason=str(verdict)))
    except OutOfTime:
        raise
    except Exception as error:  # one candidate's fault, of whatever kind, is not the search's
        return Outcome(ended(state="failed", reason=f"{type(error).__name__}: {error}"))


def once(path: Path, *, make: Callable[[], Plan]) -> Plan:
    """The plan that an earlier start of the trial made, or one made now."""
    if path.exists():
        return Plan.load(path)
    made = make()
    made.save(path)
    return made


def _figures(ground: Ground, plan: Plan) -> dict[str, Any]:
    return {
        "costs": ground.shares(plan),
        "amounts": ground.amounts(plan.after),
        "plan": plan.hash,
    }


def _judged(ground: Ground, choice: Choice, first: Plan) -> Plan:
    """The one-shot plan with its costs, before any recovery: weights do not change them."""
    model = ground.task.precisions[choice.precision](cut(ground.task.model, first))
    return ground.costed(first, model)


def _made(
    job: Job, ground: Ground, watch: Watch, first: Plan, *, steps: int
) -> tuple[nn.Module, Plan]:
    watch.check_time()
    making = Making(ground, job.choice, job.folder, watch)
    if job.choice.schedule == ITERATIVE:
        return making.iterative(first, steps=steps)
    return making.one_shot(first)


def died(job: Job, times: int) -> Trial:
    """The trial whose process ended without a word so many times."""
    reason = f"the process that ran it ended without a word {times} times (memory, perhaps)"
    return Trial(number=job.number, choice=job.choice, line=job.line, state="failed", reason=reason)
