"""Fine-tune: win back the accuracy that a cut cost, on one device, stopped and resumed at will.

`finetune` trains the model where it stands and returns the log. With a `checkpoint_dir` the run can
be killed at any moment; called again with the same arguments it goes on from the newest checkpoint
and ends with the same weights as a run that was never disturbed (bit for bit on the CPU).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from secateur.core.errors import DivergedError, TrainError
from secateur.core.fingerprint import fingerprint
from secateur.core.modes import modes_kept
from secateur.engines.parallel.none import WHOLE
from secateur.engines.training import Sharing
from secateur.train.batches import device_of
from secateur.train.companion import Companion, Training
from secateur.train.ema import Ema
from secateur.train.identity import Identity
from secateur.train.learnt import prepared_parameters
from secateur.train.log import EpochRow, TrainLog
from secateur.train.objective import LossFn, Objective, supervised
from secateur.train.precision import MixedPrecision, mixed_precision
from secateur.train.progress import Advance, progress_bar
from secateur.train.random_state import seeded
from secateur.train.run import Best, Position, Run, Validate, length
from secateur.train.settings import FinetuneSettings
from secateur.train.snapshot import not_finite, restore_, snapshot
from secateur.train.step import NotFinite, Stepper, prepared_optimizer, without_learnt_
from secateur.train.together import check_together, weighing_of


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Called while training: `on_step(step, loss)` after every optimizer step, counted from 1,
    `on_epoch(row)` after every epoch, when its checkpoint is held for writing."""

    on_step: Callable[[int, float], None] | None = None
    on_epoch: Callable[[EpochRow], None] | None = None


NO_CALLBACKS = Callbacks()


def finetune(
    model: nn.Module,
    train_data: Iterable[Any],
    *,
    settings: FinetuneSettings,
    loss_fn: LossFn | None = None,
    validate: Validate | None = None,
    checkpoint_dir: str | Path | None = None,
    optimizer: Optimizer | None = None,
    callbacks: Callbacks = NO_CALLBACKS,
    objective: Objective | None = None,
    companions: Sequence[Companion] = (),
    **sharing: Unpack[Sharing],
) -> TrainLog:
    """The log of training `model` in place; with `validate` it ends with the best epoch's weights.

    train_data: batches `(x, y)`, or mappings for a model that computes its loss (`loss_fn` may
    then be None). validate: a number that is better when higher, called in eval mode without
    gradients after each epoch. optimizer: one of your own instead of the one the settings name;
    its learning rates are the base of the schedule. objective: a whole loss of model and batch in
    place of `loss_fn`, such as `distilled` makes. companions: what else goes along, such as `Ema`,
    penalties and pruning while training; called in their order. parallel: how the processes of a
    world share the training, of `secateur.engines.parallel`; every one of them calls this, and the
    global batch, the losses and the decisions are those of one process.
    Raises: TrainError when it cannot start (no data, nothing to train, another run's checkpoint,
    labels out of range), and its DivergedError when loss, weights or metric are not finite; the
    best weights so far are then put back.
    """
    parallel = sharing.get("parallel", WHOLE)
    _check_arguments(settings, loss_fn, validate, objective)
    if settings.device is not None:
        model.to(torch.device(settings.device))
    _check_start(model, train_data, settings)
    objective = supervised(loss_fn) if objective is None else objective
    learnt = prepared_parameters(objective, model, train_data)
    if settings.ema is not None:
        companions = (*companions, Ema(settings.ema))
    check_together(
        parallel,
        companions,
        optimizer=optimizer,
        learnt=bool(learnt),
        precision=settings.precision,
    )
    identity = _identity(model, train_data, settings, companions)
    trained = parallel.lay_out(model)
    training = Training(
        model=trained,
        optimizer=prepared_optimizer(trained, settings, optimizer, learnt=learnt),
        total_steps=_total_steps(train_data, settings),
        companions=tuple(companions),
        replicate=parallel.replicate,
    )
    weighing = weighing_of(loss_fn, model)
    stepper = Stepper(
        training, objective, _precision(model, settings), settings, parallel, weighing, learnt
    )
    run = _new_run(stepper, identity, train_data, validate)
    run.folder = Path(checkpoint_dir) if checkpoint_dir is not None else None
    return _finished(run, model, callbacks)


def _finished(run: Run, model: nn.Module, callbacks: Callbacks) -> TrainLog:
    """The log of a whole run, when what was trained is in the model that was given."""
    stepper = run.stepper
    settings, training, parallel = stepper.settings, stepper.training, stepper.parallel
    try:
        with seeded(settings.seed), modes_kept(training.model), run.writer:
            resumed_at = _trained(run, callbacks)
    finally:
        parallel.end_()
        without_learnt_(training.optimizer, stepper.learnt)
    if run.validate is not None and settings.restore_best:
        restore_(training.model, run.best.weights)
    parallel.bring_back_(model, training.model)
    return TrainLog(
        rows=tuple(run.rows),
        stopped=run.stopped or "epochs",
        best_epoch=run.best.epoch if run.validate else None,
        best_metric=run.best.metric,
        resumed_at=resumed_at,
    )


def _identity(
    model: nn.Module,
    data: Iterable[Any],
    settings: FinetuneSettings,
    companions: Sequence[Companion],
) -> Identity:
    names = tuple(type(companion).__qualname__ for companion in companions)
    return Identity(fingerprint(model), length(data), settings.decisive(), names)


def _precision(model: nn.Module, settings: FinetuneSettings) -> MixedPrecision:
    return mixed_precision(settings.precision, device_of(model))


def _new_run(
    stepper: Stepper, identity: Identity, data: Iterable[Any], validate: Validate | None
) -> Run:
    """A run at the schedule's start, or at the epoch that it is rewound to."""
    training, settings = stepper.training, stepper.settings
    step = settings.rewind_to * (training.total_steps // settings.epochs)
    start = Position(epoch=settings.rewind_to, step=step)
    return Run(stepper, data, validate, None, Best(snapshot(training.model)), identity, start)


def _trained(run: Run, callbacks: Callbacks) -> int | None:
    """Train to the end, companions along; the step at which the run was resumed, if it was."""
    training = run.stepper.training
    training.step, training.epoch = run.position.step, run.position.epoch
    for companion in training.companions:
        companion.begin_(training)
    resumed_at = run.resume_()
    _train_(run, callbacks)
    for companion in training.companions:
        companion.end_(training)
    return resumed_at


def _check_arguments(
    settings: FinetuneSettings,
    loss_fn: LossFn | None,
    validate: Validate | None,
    objective: Objective | None,
) -> None:
    if settings.patience and validate is None:
        raise ValueError("patience needs a validation: give validate=, or leave patience None")
    if objective is not None and loss_fn is not None:
        raise ValueError(
            "loss_fn and objective were both given, and the objective holds a loss of its own; "
            "give one, for example objective=distilled(loss_fn, teacher)"
        )


def _train_(run: Run, callbacks: Callbacks) -> None:
    stepper = run.stepper
    settings, total = stepper.settings, stepper.training.total_steps or None
    with progress_bar("fine-tuning", total=total, wanted=settings.progress) as advance:
        on_step = _on_step(run, callbacks, advance)
        try:
            while run.stopped is None:
                row = run.train_epoch_(on_step)
                if callbacks.on_epoch:
                    callbacks.on_epoch(row)
        except NotFinite as error:
            restore_(stepper.model, run.best.weights)
            raise _diverged(run, error) from None
        except KeyboardInterrupt as error:
            if run.saved:
                error.add_note(f"run the same again to go on from {run.folder}")
            raise


def _on_step(run: Run, callbacks: Callbacks, advance: Advance) -> Callable[[int, float], None]:
    def on_step(step: int, loss: float) -> None:
        metric = f", metric {run.rows[-1].metric:.4g}" if run.best.metric is not None else ""
        advance(step, f"epoch {run.position.epoch + 1}, loss {loss:.4g}{metric}")
        if callbacks.on_step:
            callbacks.on_step(step, loss)

    return on_step


def _diverged(run: Run, error: NotFinite) -> DivergedError:
    lr = run.stepper.settings.lr
    good = f"epoch {run.best.epoch}" if run.best.epoch else "the start"
    return DivergedError(
        f"{error} in epoch {run.position.epoch + 1}, after {run.position.step} steps "
        f"(learning rate {run.stepper.lr:.3g}). The weights of {good} were put back. "
        f"Try lr={lr / 10:g}, clip_norm=1.0 or warmup=0.1; if it stays, look for NaN in the data"
    )


def _check_start(model: nn.Module, data: Iterable[Any], settings: FinetuneSettings) -> None:
    if isinstance(data, Iterator):
        raise TrainError(
            f"train_data is a {type(data).__name__}, which can be read only once; give a list, a "
            "DataLoader or TensorBatches(x, y, batch_size=64)"
        )
    if length(data) == 0:
        raise TrainError(_why_empty(data))
    spoiled = not_finite(model)
    if spoiled is not None:
        raise TrainError(
            f"the weights of {spoiled} hold NaN or infinity before the first step; "
            "load the model's weights again"
        )


def _why_empty(data: object) -> str:
    if isinstance(data, DataLoader) and data.drop_last and data.batch_size:
        samples = length(data.dataset)
        return (
            f"the DataLoader's batch_size {data.batch_size} is bigger than its data of {samples} "
            f"samples and drop_last drops the rest; use batch_size={samples} or drop_last=False"
        )
    return "the data is empty: train_data has no batch; give at least one"


def _total_steps(data: Iterable[Any], settings: FinetuneSettings) -> int:
    """Optimizer steps of the whole run; 0 when unknown and no schedule needs it."""
    batches, limit = length(data), settings.steps_per_epoch
    if batches is not None:
        epoch = math.ceil(batches / settings.accumulate)
        return settings.epochs * (min(epoch, limit) if limit else epoch)
    if limit:
        return settings.epochs * limit
    if settings.schedule == "constant" and not settings.warmup:
        return 0
    raise TrainError(
        f"the schedule {settings.schedule!r} must know how long an epoch is and the data has no "
        'length; set steps_per_epoch, or schedule="constant" without warm-up'
    )
