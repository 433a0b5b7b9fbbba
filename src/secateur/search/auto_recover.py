"""Recoveries of automatic pruning: the learning rate found by trying, as long as time allows.

A recovery is made to fit into the time that is left, so that its schedule comes to its end; a clock
inside stops one that takes longer than it should have. What a recovery is told is on disk before it
begins, so that one that was killed goes on as it was.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.atomic import write_text
from secateur.core.copies import copied
from secateur.core.errors import DivergedError
from secateur.core.modes import evaluating
from secateur.search.auto_clock import Clock, TimeIsOver
from secateur.search.auto_subject import Subject
from secateur.train.distil import distilled
from secateur.train.finetune import Callbacks, finetune
from secateur.train.log import EpochRow
from secateur.train.objective import Objective, supervised
from secateur.train.run import length
from secateur.train.settings import FinetuneSettings
from secateur.train.snapshot import restore_, snapshot

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""Learning rates that may be tried, from the middle uphill."""
PROBE_STEPS = 60
AS_GOOD = 1.1
"""A higher rate is taken whose loss after these few steps is at most so many times the lowest: what
it still wins in a whole recovery, a short one does not show."""
FEWEST_STEPS = 10
SHORT_SHARE, LONG_SHARE = 0.15, 0.6
"""Of the whole time for a short recovery, of the time that is left for a long one."""


@dataclass(frozen=True)
class Recovered:
    """metric: of the best weights, which the model has now. epochs: taken. gain: of the metric in
    the last epoch, None where there was one only. stopped: whether the time was over."""

    metric: float
    epochs: float
    gain: float | None
    lr: float
    stopped: bool = False


@dataclass(frozen=True)
class Length:
    """epochs, and steps of each where they are shortened."""

    epochs: int
    steps: int | None


def fitting(
    epochs: int, *, steps_in_epoch: int | None, step_s: float, check_s: float, within_s: float
) -> Length:
    """As much of `epochs` as fits into some seconds. check_s: of a validation.

    Raises: TimeIsOver where not even a few steps do.

    >>> fitting(4, steps_in_epoch=100, step_s=0.1, check_s=1.0, within_s=25.0)
    Length(epochs=2, steps=None)
    >>> fitting(4, steps_in_epoch=100, step_s=0.1, check_s=1.0, within_s=6.0)
    Length(epochs=1, steps=50)
    """
    if math.isinf(within_s) or steps_in_epoch is None:
        return Length(epochs, None)
    whole = int(within_s // (steps_in_epoch * step_s + check_s))
    if whole >= 1:
        return Length(min(epochs, whole), None)
    steps = int((within_s - check_s) / step_s) if step_s else steps_in_epoch
    if steps < FEWEST_STEPS:
        raise TimeIsOver
    return Length(1, min(steps, steps_in_epoch))


@dataclass(frozen=True)
class Task:
    """The recovery of step `number`. metric: of the model before it. doubled: how often the epochs
    of a long one are."""

    number: int
    long: bool
    metric: float
    doubled: int = 0


@dataclass(frozen=True)
class Recovery:
    """check_s: what a validation takes. reserve_s: what the end of the run needs."""

    subject: Subject
    clock: Clock
    check_s: float
    reserve_s: float

    def probe(self, model: nn.Module) -> dict[str, Any]:
        """The highest learning rate that leaves about the least loss after a few steps, and a
        step's seconds."""
        given = self.subject.settings.lr
        started = time.monotonic()
        if given is not None:
            steps = self._try(model, given, FEWEST_STEPS)[1]
            return {"lr": given, "tried": {}, "step_s": (time.monotonic() - started) / steps}
        found: dict[int, float] = {}
        spent, taken = 0.0, 0

        def metric(index: int) -> float:
            nonlocal spent, taken
            if index not in found:
                started = time.monotonic()
                twin, steps = self._try(model, RATES[index], PROBE_STEPS)
                spent, taken = spent + time.monotonic() - started, taken + steps
                found[index] = -math.inf if twin is None else -self._loss(twin)
            return found[index]

        least = -metric(uphill(metric, len(RATES)))
        best = max(index for index, value in found.items() if -value <= AS_GOOD * least)
        tried = {f"{RATES[index]:g}": -value for index, value in sorted(found.items())}
        return {"lr": RATES[best], "tried": tried, "step_s": spent / max(1, taken)}

    def recover_(
        self, model: nn.Module, task: Task, *, rate: dict[str, Any], folder: Path
    ) -> Recovered:
        """Train a model in place, from where an interrupted recovery in `folder` stood.

        rate: what `probe` found. Raises: TimeIsOver where there is no time for it, DivergedError.
        """
        place = folder / "training.json"
        if not place.is_file():
            how = self._length(task, rate["step_s"])
            told = {"epochs": how.epochs, "steps": how.steps, "lr": rate["lr"]}
            write_text(place, json.dumps(told) + "\n")
        told = json.loads(place.read_text(encoding="utf-8"))
        changes = {"epochs": told["epochs"], "steps_per_epoch": told["steps"], "lr": told["lr"]}
        given = self.subject.settings
        settings = replace(given.training, seed=given.seed + task.number, **changes)
        return self._trained(_Kept(model, task.metric), model, settings, folder / "checkpoints")

    def _trained(
        self, kept: _Kept, model: nn.Module, settings: FinetuneSettings, folder: Path
    ) -> Recovered:
        stopped = False
        try:
            log = self._finetune(model, settings, folder, kept)
            kept.rows = list(log.rows)
            kept.take_(log.best_metric)
        except TimeIsOver:
            stopped = True
            kept.take_(self.subject.validate(model))
        restore_(model, kept.weights)
        metrics = [row.metric for row in kept.rows if row.metric is not None]
        gain = metrics[-1] - metrics[-2] if len(metrics) > 1 else None
        return Recovered(kept.metric, len(kept.rows), gain, settings.lr, stopped)

    def _finetune(
        self, model: nn.Module, settings: FinetuneSettings, folder: Path, kept: _Kept
    ) -> Any:
        objective, data = self._objective(), self.subject.data
        return finetune(
            model,
            data.train,
            settings=settings,
            loss_fn=data.loss_fn if objective is None else None,
            validate=data.validate,
            checkpoint_dir=folder,
            callbacks=Callbacks(self._on_step, kept.on_epoch_),
            objective=objective,
        )

    def _try(self, model: nn.Module, lr: float, steps: int) -> tuple[nn.Module | None, int]:
        """A copy after a few steps at a rate, None where they diverged; and how many they were."""
        data, twin, given = self.subject.data, copied(model), self.subject.settings
        objective, epoch = self._objective(), length(data.train)
        steps = min(steps, epoch or steps)
        settings = replace(
            given.training,
            epochs=1,
            steps_per_epoch=steps,
            lr=lr,
            checkpoint_every=None,
            progress=False,
            seed=given.seed,
        )
        try:
            finetune(
                twin,
                data.train,
                settings=settings,
                loss_fn=data.loss_fn if objective is None else None,
                callbacks=Callbacks(self._on_step),
                objective=objective,
            )
        except DivergedError:
            return None, steps
        return twin, steps

    def _loss(self, model: nn.Module) -> float:
        """Mean of what recoveries minimise, on the calibration data: finer than any accuracy."""
        objective = self._objective() or supervised(self.subject.data.loss_fn)
        batches = self.subject.calibration
        with evaluating(model), torch.no_grad():
            return sum(float(objective(model, batch)) for batch in batches) / len(batches)

    def _objective(self) -> Objective | None:
        if not self.subject.settings.distil:
            return None
        return distilled(self.subject.data.loss_fn, self.subject.dense)

    def _on_step(self, step: int, loss: float) -> None:
        self.clock.tick()
        if self.clock.left_s < self.reserve_s:
            raise TimeIsOver

    def _length(self, task: Task, step_s: float) -> Length:
        settings = self.subject.settings
        left = self.clock.left_s - self.reserve_s
        within = LONG_SHARE * left
        if not task.long and settings.time_limit_s is not None:
            within = min(left, SHORT_SHARE * settings.time_limit_s)
        return fitting(
            settings.long_epochs * 2**task.doubled if task.long else settings.epochs,
            steps_in_epoch=settings.training.steps_per_epoch or length(self.subject.data.train),
            step_s=step_s,
            check_s=self.check_s,
            within_s=within,
        )


class _Kept:
    """The best weights of a recovery, those before its first step among them."""

    def __init__(self, model: nn.Module, metric: float) -> None:
        self._model, self.metric = model, metric
        self.weights = snapshot(model)
        self.rows: list[EpochRow] = []

    def on_epoch_(self, row: EpochRow) -> None:
        self.rows.append(row)
        self.take_(row.metric)

    def take_(self, metric: float | None) -> None:
        """Keep the model's weights of now if they are better."""
        if metric is not None and metric > self.metric:
            self.metric, self.weights = metric, snapshot(self._model)


def uphill(value: Callable[[int], float], count: int) -> int:
    """The index of a peak of `value`, from the middle in the better direction; the lower of equals.

    >>> uphill([1, 2, 5, 4, 3, 2, 1].__getitem__, 7), uphill([0, 0, 0].__getitem__, 3)
    (2, 0)
    """
    best = count // 2
    for direction in (-1, 1):
        moved = False
        while 0 <= best + direction < count:
            there, here = value(best + direction), value(best)
            if there < here or (there == here and direction > 0):
                break
            best, moved = best + direction, True
        if moved:
            break
    return best
