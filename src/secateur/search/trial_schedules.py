"""The schedules of a search: all units at once, or in steps with a recovery after each.

Both have the same number of optimizer steps in all. Everything is kept in a folder as it is made,
so that a trial whose process died goes on from its newest checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.criteria.score import score
from secateur.cut import apply_architecture_, cut
from secateur.cut.compose import compose
from secateur.graph import trace
from secateur.oneshot import reconstruct_
from secateur.search.study_space import Choice
from secateur.search.trial_ground import Ground
from secateur.search.trial_task import Task
from secateur.search.trial_watch import Watch
from secateur.select.plan import plan
from secateur.train.batches import set_epoch_
from secateur.train.distil import distilled
from secateur.train.finetune import Callbacks, finetune
from secateur.train.iterative import prune_iteratively
from secateur.train.loop_values import Attempt, IterativeSettings, PruneStep


@dataclass(frozen=True)
class Making:
    """A candidate in the making. folder: for checkpoints."""

    ground: Ground
    choice: Choice
    folder: Path
    watch: Watch

    def one_shot(self, made: Plan) -> tuple[nn.Module, Plan]:
        """Cut as the plan says, fitted where that was chosen, recovered."""
        small = self.cut(self.ground.task.model, made)
        self.recover_(small, whole(self.ground.task), 0, self.folder / "recovery")
        return small, made

    def iterative(self, made: Plan, *, steps: int) -> tuple[nn.Module, Plan]:
        """As small as the plan by multiply-accumulates, in steps that are scored anew each time.

        Raises: BudgetError when a step could not be made.
        """
        task, graph = self.ground.task, self.ground.graph
        portion = part(task, of=steps)

        def recover(model: nn.Module, attempt: Attempt) -> None:
            assert attempt.folder is not None
            self.recover_(model, portion, attempt.number - 1, attempt.folder)

        result = prune_iteratively(
            task.model,
            step=PruneStep(self._step, _rebuilt, self._macs),
            recover=recover,
            validate=lambda model: 0.0,  # nothing is undone: the search judges the end
            settings=IterativeSettings(
                target=made.after.macs / made.before.macs,
                steps=steps,
                lr=self.choice.lr,
                lr_decay=1.0,
                retries=0,
            ),
            run_dir=self.folder / "steps",
        )
        if not result.met:
            raise BudgetError(f"the steps did not reach {self.choice.share:.1%}: {result.reason}")
        plans = [Plan.from_json(text) for text in result.plans]
        settings = {**plans[-1].settings, "budget": made.settings["budget"], "steps": len(plans)}
        return result.model, compose(graph, plans, final=result.model, settings=settings)

    def cut(self, model: nn.Module, made: Plan) -> nn.Module:
        """The smaller model, fitted to the larger one's outputs where that was chosen."""
        small = cut(model, made)
        if self.choice.reconstruct:
            reconstruct_(small, model, plan=made, data=self.ground.calibration)
        return small

    def recover_(self, model: nn.Module, portion: Portion, number: int, folder: Path) -> None:
        """One of the portions that the recovery is divided into, from its checkpoint if any."""
        task, choice = self.ground.task, self.choice
        settings = replace(
            task.recovery,
            lr=choice.lr,
            epochs=portion.epochs,
            steps_per_epoch=portion.steps_per_epoch,
            rewind_to=portion.rewind_to,
            progress=False,
        )
        objective = distilled(task.loss_fn, task.model) if choice.distil else None
        before = number * portion.steps
        chooses = portion.epochs > 1 or settings.patience is not None
        finetune(
            model,
            Onward(task.train_data, by=number * portion.epochs) if number else task.train_data,
            settings=settings,
            loss_fn=task.loss_fn if objective is None else None,
            validate=task.validate if chooses else None,
            checkpoint_dir=folder,
            callbacks=Callbacks(on_step=lambda step, _: self.watch.look(before + step, model)),
            objective=objective,
        )

    def _macs(self, model: nn.Module) -> float:
        return float(cost(trace(model, self.ground.task.example_inputs)).macs)

    def _step(self, model: nn.Module, share: float) -> tuple[nn.Module, str]:
        """A model with at most a share of this one's multiply-accumulates, scored anew."""
        task, ground = self.ground.task, self.ground
        graph = trace(model, task.example_inputs)
        scores = score(
            graph,
            model,
            criterion=self.choice.criterion,
            data=ground.calibration,
            loss_fn=task.loss_fn,
            seed=ground.seed,
        )
        made = plan(
            graph,
            scores,
            budget=Budget((Limit("macs", share, None),)),
            constraints=replace(task.constraints, selector=self.choice.selector),
            settings={"criterion": self.choice.criterion, "seed": ground.seed},
        )
        return self.cut(model, made), made.to_json()


@dataclass(frozen=True, slots=True)
class Portion:
    """A recovery, or one of the equal parts that it is divided into. steps: of the optimizer."""

    steps: int
    epochs: int
    steps_per_epoch: int | None
    rewind_to: int = 0


def whole(task: Task) -> Portion:
    """The recovery as the task has it."""
    recovery = task.recovery
    return Portion(task.steps, recovery.epochs, recovery.steps_per_epoch, recovery.rewind_to)


def part(task: Task, *, of: int) -> Portion:
    """One of equal parts, with epochs no longer than the task's."""
    steps = ceil(task.steps / of)
    epochs = ceil(steps * task.recovery.epochs / task.steps)
    return Portion(steps, epochs, ceil(steps / epochs))


class Onward:
    """The training data, whose epochs go on where the portion before left off."""

    def __init__(self, data: Iterable[Any], *, by: int) -> None:
        self.data, self.by = data, by

    def set_epoch(self, epoch: int) -> None:
        """Epoch 0 of this portion is a later one of the data."""
        set_epoch_(self.data, epoch + self.by)

    def __len__(self) -> int:
        return len(self.data)  # type: ignore[arg-type]  # a TypeError where there is no length

    def __iter__(self) -> Iterator[Any]:
        return iter(self.data)


def _rebuilt(model: nn.Module, text: str) -> nn.Module:
    return apply_architecture_(model, Plan.from_json(text))
