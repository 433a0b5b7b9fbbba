"""The iterative loop of a run: prune a step, recover, check the floor, go on or step back.

`train.prune_iteratively` decides; here it is given the pipeline's functions to call. Every decision
is on disk before the next begins. The steps become one plan for the dense model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from secateur.cli.output import say
from secateur.cli.plan import plan_units, score_units, trace_model
from secateur.cli.sources import Batches
from secateur.cli.subject import Subject, finetune_
from secateur.core.atomic import write_text
from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError, TrainError
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.cut import apply_architecture_, cut
from secateur.graph import trace
from secateur.train.iterative import prune_iteratively
from secateur.train.loop_values import Attempt, IterativeResult, IterativeSettings, PruneStep
from secateur.train.settings import FinetuneSettings


def prune_in_steps(subject: Subject, folder: Path) -> IterativeResult:
    """The smallest model on the way to the budget that holds the floor.

    folder: holds the loop's state; the same call goes on from there.
    Raises: TrainError without data or recovery, BudgetError when no step held the floor.
    """
    recovery, batches = subject.settings.recover, subject.batches
    if recovery is None or batches is None:
        raise TrainError("the loop retrains after each step: name data, and leave `recover` on")
    steps = _Steps(subject, batches, recovery, only_limit(subject.settings.budget), folder)
    result = prune_iteratively(
        subject.loaded.model,
        step=PruneStep(steps.prune, steps.rebuild, steps.cost),
        recover=steps.recover_,
        validate=batches.validate,
        settings=_settings(subject, steps),
        run_dir=folder,
    )
    if not result.plans:
        raise BudgetError(f"no step could be taken: {result.reason}")
    return result


def accepted_log(folder: Path, result: IterativeResult) -> str:
    """The epochs of the steps that were accepted, as JSON lines."""
    numbers = [step.number for step in result.history if step.accepted]
    return "".join(_attempt_log(folder, number).read_text(encoding="utf-8") for number in numbers)


def only_limit(budget: str | None) -> Limit:
    """The one limit that a loop can approach in steps. Raises: ValueError."""
    limits = Budget.parse(budget).limits if budget else ()
    if len(limits) != 1:
        raise ValueError(
            f"budget {budget!r}: the loop goes toward one limit, for example budget: macs=50%"
        )
    return limits[0]


@dataclass(frozen=True)
class _Steps:
    """The pipeline's functions in the form that the loop calls."""

    subject: Subject
    batches: Batches
    recovery: FinetuneSettings
    limit: Limit
    folder: Path

    def cost(self, model: nn.Module) -> float:
        """The limited metric of a model."""
        return self.limit.value(cost(trace(model, self.subject.loaded.example_inputs)))

    def prune(self, model: nn.Module, share: float) -> tuple[nn.Module, str]:
        """A model with at most `share` of this one's cost, and the plan."""
        subject = self.subject
        loaded = replace(subject.loaded, model=model)
        graph = trace_model(subject.settings, loaded)
        scores = score_units(subject.settings, loaded, graph, subject.data)
        budget = Budget((Limit(self.limit.metric, share, None),))
        plan = plan_units(subject.settings, graph, scores, budget=budget)
        return cut(model, plan), plan.to_json()

    def rebuild(self, model: nn.Module, plan: str) -> nn.Module:
        """The architecture that a plan leads to."""
        return apply_architecture_(model, Plan.from_json(plan))

    def recover_(self, model: nn.Module, attempt: Attempt) -> None:
        """Retrain at the attempt's learning rate and keep its log."""
        say(f"attempt {attempt.number}: {attempt.remaining:.1%} remains, recovering")
        assert attempt.folder is not None
        settings = replace(self.recovery, lr=attempt.lr)
        seed = self.subject.settings.seed
        log = finetune_(model, self.batches, settings, seed=seed, folder=attempt.folder)
        write_text(_attempt_log(self.folder, attempt.number), log.to_jsonl())


def _settings(subject: Subject, steps: _Steps) -> IterativeSettings:
    loop, limit = subject.settings.loop, steps.limit
    assert loop is not None
    dense = cost(subject.graph)
    return IterativeSettings(
        target=limit.allowed(dense) / limit.value(dense),
        steps=loop.steps,
        schedule=loop.remaining,
        floor=loop.floor,
        max_drop=loop.max_drop,
        retries=loop.retries,
        lr=steps.recovery.lr,
    )


def _attempt_log(folder: Path, number: int) -> Path:
    return folder / f"attempt-{number:04d}.jsonl"
