"""Prune a step, retrain, check on the validation set, go on or step back: until target or floor.

`prune_iteratively` takes plain callables, so it knows neither graphs nor optimizers. A step that
falls below the floor is undone: the last good model comes back, the step is halved and the learning
rate lowered, and after too many such attempts the loop ends and says how close it came. With a run
directory every decision is on disk before the next begins, and a killed run goes on from there.
"""

from __future__ import annotations

import copy
import math
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from secateur.core.errors import BudgetError, DivergedError
from secateur.core.modes import evaluating
from secateur.core.world import ALONE, World
from secateur.train.loop_state import LoopState, Pending, load_state, save_state
from secateur.train.loop_values import (
    Attempt,
    IterativeResult,
    IterativeSettings,
    IterativeStep,
    PruneStep,
    Recover,
)
from secateur.train.remaining import REMAINING
from secateur.train.run import Validate

EPSILON = 1e-9  # of a fraction of the cost: below it two costs are the same


def prune_iteratively(
    model: nn.Module,
    *,
    step: PruneStep,
    recover: Recover,
    validate: Validate,
    settings: IterativeSettings,
    run_dir: str | Path | None = None,
    world: World = ALONE,
) -> IterativeResult:
    """The smallest model on the way to the target that holds the floor; `model` is unchanged.

    validate: a number that is better when higher, called in eval mode without gradients. world: of
    ranks that all call this, and all decide as rank 0 does.
    Raises: BudgetError when the dense model itself is below the floor, TrainError when the run
    directory holds another run, and whatever `step` and `recover` raise.
    """
    folder = Path(run_dir) if run_dir is not None else None
    if folder is not None and step.rebuild is None:
        raise ValueError("run_dir needs step.rebuild, to make the smaller models again on resume")
    state = load_state(folder, dense=model, step=step, settings=settings)
    if state is None:
        dense_metric = _measured(model, validate, world)
        state = LoopState(model, float(step.cost(model)), dense_metric, dense_metric)
    floor = settings.lowest_metric(state.dense_metric)
    loop = _Loop(model, step, recover, validate, settings, folder, floor, state, world)
    while state.reason is None:
        loop.go_on_()
    return IterativeResult(
        model=state.model,
        met=state.remaining <= settings.target + EPSILON,
        reason=state.reason,
        remaining=state.remaining,
        metric=state.metric,
        dense_metric=state.dense_metric,
        floor=floor,
        plans=tuple(state.plans),
        history=tuple(state.history),
    )


@dataclass(frozen=True, slots=True)
class _Loop:
    dense: nn.Module
    step: PruneStep
    recover: Recover
    validate: Validate
    settings: IterativeSettings
    folder: Path | None
    floor: float | None
    state: LoopState
    world: World

    def go_on_(self) -> None:
        """One attempt from pruning to its decision, or the end of the loop."""
        state, started = self.state, time.monotonic()
        if state.pending is None:
            state.reason = self.world.first(self._reason_to_stop(), what="when to stop")
            if state.reason is None:
                self._prune_()
        if state.pending is not None:
            self._recover_and_decide_(state.pending, started)
        state.seconds += time.monotonic() - started
        self._save()
        if self.folder is not None and self.world.rank == 0:
            for done in self.folder.glob("recovery-*"):
                shutil.rmtree(done, ignore_errors=True)

    def _prune_(self) -> None:
        """Make the next step's model, leaving it pending; or end, or undo, if it cannot be made."""
        state = self.state
        progress, asked = self._next()
        share = asked / state.remaining
        try:
            pruned, plan = self.step.prune(copy.deepcopy(state.model), share)
        except BudgetError as error:
            self._undo_(_impossible(len(state.history) + 1, asked, self._lr(), str(error)))
            return
        if self._remaining(pruned) >= state.remaining - EPSILON:
            state.reason = (
                f"the step that should have left {asked:.1%} removed nothing; {self._how_close()}"
            )
            return
        metric = _measured(pruned, self.validate, self.world)
        state.pending = Pending(pruned, plan, asked, progress, metric)
        self._save()

    def _recover_and_decide_(self, pending: Pending, started: float) -> None:
        state, number = self.state, len(self.state.history) + 1
        folder = self.folder / f"recovery-{number:04d}" if self.folder else None
        attempt = Attempt(number, self._lr(), self._remaining(pending.model), folder)
        metric, note = None, ""
        try:
            self.recover(pending.model, attempt)
            metric = _measured(pending.model, self.validate, self.world)
        except DivergedError as error:
            note = str(error)
        if metric is not None:
            note = self._too_low(metric)
        tried = IterativeStep(
            number=number,
            asked=pending.asked,
            remaining=attempt.remaining,
            cost=float(self.step.cost(pending.model)),
            metric_pruned=pending.metric_pruned,
            metric=metric,
            lr=attempt.lr,
            accepted=not note,
            note=note,
            seconds=time.monotonic() - started,
        )
        state.pending = None
        if metric is None or note:
            self._undo_(tried)
            return
        state.history.append(tried)
        state.plans.append(pending.plan)
        state.model, state.metric, state.remaining = pending.model, metric, attempt.remaining
        state.progress, state.accepted, state.rejected = pending.progress, state.accepted + 1, 0

    def _too_low(self, metric: float) -> str:
        """Why a metric cannot be accepted, empty when it can."""
        if math.isnan(metric):
            return "the metric is nan"
        if self.floor is not None and metric < self.floor:
            return f"metric {metric:.4g} is below the floor {self.floor:.4g}"
        return ""

    def _undo_(self, tried: IterativeStep) -> None:
        """Stay with the last good model and halve the step; end when it gets too small."""
        state, settings = self.state, self.settings
        state.history.append(tried)
        state.scale, state.rejected = state.scale / 2, state.rejected + 1
        smaller = state.remaining - self._next()[1]
        if state.rejected > settings.retries:
            state.reason = f"{state.rejected} attempts in a row failed"
        elif smaller < settings.minimum_step:
            state.reason = (
                f"the next halved step would remove {smaller:.2%}, less than minimum_step "
                f"{settings.minimum_step:.2%}"
            )
        if state.reason is not None:
            state.reason += f" (the last one: {tried.note}); {self._how_close()}"

    def _next(self) -> tuple[float, float]:
        """Progress on the schedule and fraction of the dense cost that the next step asks for."""
        state, settings = self.state, self.settings
        remaining, progress = REMAINING[settings.schedule], state.progress
        while True:  # a step that removed more than it was asked passes over later ones
            progress = min(1.0, progress + state.scale / settings.steps)
            asked = remaining(progress, target=settings.target)
            if asked < state.remaining - EPSILON or progress >= 1.0:
                return progress, asked

    def _reason_to_stop(self) -> str | None:
        state, settings = self.state, self.settings
        if state.remaining <= settings.target + EPSILON:
            return f"the target was reached: {self._how_close()}"
        if settings.max_steps is not None and len(state.history) >= settings.max_steps:
            return f"max_steps {settings.max_steps} attempts were made; {self._how_close()}"
        if settings.time_limit_s is not None and state.seconds >= settings.time_limit_s:
            return f"the time limit of {settings.time_limit_s:g} s is over; {self._how_close()}"
        return None

    def _how_close(self) -> str:
        state = self.state
        return (
            f"{state.remaining:.1%} of the cost remains (target {self.settings.target:.1%}) "
            f"at metric {state.metric:.4g} (dense {state.dense_metric:.4g})"
        )

    def _lr(self) -> float:
        settings, state = self.settings, self.state
        return settings.lr * settings.lr_decay**state.accepted * settings.lr_retry**state.rejected

    def _remaining(self, model: nn.Module) -> float:
        return float(self.step.cost(model)) / self.state.dense_cost

    def _save(self) -> None:
        world = self.world
        save_state(self.state, self.folder, dense=self.dense, settings=self.settings, world=world)


def _impossible(number: int, asked: float, lr: float, note: str) -> IterativeStep:
    return IterativeStep(number, asked, None, None, None, None, lr, accepted=False, note=note)


def _measured(model: nn.Module, validate: Validate, world: World) -> float:
    with evaluating(model), torch.no_grad():
        return world.first(float(validate(model)), what="the metric of a step")
