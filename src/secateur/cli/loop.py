"""The iterative loop of a run: prune a step, recover, check the floor, go on or step back.

`train.prune_iteratively` decides; here it is given the pipeline's functions to call. Every decision
is on disk before the next begins. The steps become one plan for the dense model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from secateur.cli.output import say
from secateur.cli.plan import plan_units, score_units, trace_model
from secateur.cli.prune_settings import PruneStage
from secateur.cli.recovery import recover_
from secateur.cli.recovery_settings import Recovery
from secateur.cli.run_directory import by_first
from secateur.cli.subject import Subject
from secateur.core.atomic import write_text
from secateur.core.budget import Budget, Limit
from secateur.core.cost import Cost
from secateur.core.errors import BudgetError, TrainError
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.cut import apply_architecture_, cut
from secateur.engines.agreement import agree_on
from secateur.graph import trace
from secateur.train.iterative import prune_iteratively
from secateur.train.loop_values import Attempt, IterativeResult, IterativeSettings, PruneStep

if TYPE_CHECKING:
    from secateur.zoo.loaded import LoadedModel


def prune_in_steps(
    stage: PruneStage, subject: Subject, loaded: LoadedModel, graph: Graph, *, folder: Path
) -> IterativeResult:
    """The smallest model on the way to the budget that holds the floor.

    loaded, graph: the model as the stage finds it. folder: holds the loop's state; the same call
    goes on from there.
    Raises: TrainError without data or recovery, BudgetError when no step held the floor.
    """
    if stage.recover is None or subject.batches is None:
        raise TrainError("the loop retrains after each step: name data, and leave `recover` on")
    limit = only_limit(stage.budget)
    steps = _Steps(stage, subject, loaded, stage.recover, limit, folder)
    result = prune_iteratively(
        loaded.model,
        step=PruneStep(steps.prune, steps.rebuild, steps.cost),
        recover=steps.recover_,
        validate=subject.batches.validate,
        settings=_settings(steps, cost(graph)),
        run_dir=folder,
        world=subject.world,
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

    stage: PruneStage
    subject: Subject
    loaded: LoadedModel
    recovery: Recovery
    limit: Limit
    folder: Path

    def cost(self, model: nn.Module) -> float:
        """The limited metric of a model."""
        return self.limit.value(cost(trace(model, self.loaded.example_inputs)))

    def prune(self, model: nn.Module, share: float) -> tuple[nn.Module, str]:
        """A model with at most `share` of this one's cost, and the plan."""
        stage, subject, run = self.stage, self.subject, self.subject.settings
        loaded = replace(self.loaded, model=model)
        graph = trace_model(loaded, huggingface=run.huggingface)
        world = subject.world
        scores = score_units(stage, loaded, graph, subject.data, seed=run.seed, world=world)
        budget = Budget((Limit(self.limit.metric, share, None),))
        plan = agree_on(plan_units(stage, graph, scores, seed=run.seed, budget=budget), world)
        return cut(model, plan), plan.to_json()

    def rebuild(self, model: nn.Module, plan: str) -> nn.Module:
        """The architecture that a plan leads to."""
        return apply_architecture_(model, Plan.from_json(plan))

    def recover_(self, model: nn.Module, attempt: Attempt) -> None:
        """Retrain at the attempt's learning rate and keep its log."""
        say(f"attempt {attempt.number}: {attempt.remaining:.1%} remains, recovering")
        assert attempt.folder is not None
        settings = replace(self.recovery, lr=attempt.lr)
        log = recover_(model, self.subject, settings, folder=attempt.folder)
        path = _attempt_log(self.folder, attempt.number)
        by_first(self.subject.world, lambda: write_text(path, log.to_jsonl()), what="a log")


def _settings(steps: _Steps, dense: Cost) -> IterativeSettings:
    loop, limit = steps.stage.loop, steps.limit
    assert loop is not None
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
