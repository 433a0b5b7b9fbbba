"""A recovery under way: its position, its best weights, its log, and its checkpoints.

The position counts the batches read in the running epoch. A run taken up again in the middle of an
epoch puts the generators back to where they stood at the epoch's start, reads and drops the same
batches, then sets the generators to the checkpoint's: from there on every number is the same.
"""

from __future__ import annotations

import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.atomic import write_text
from secateur.core.errors import TrainError
from secateur.core.modes import evaluating
from secateur.train.batches import labels_digest, samples_in, set_epoch_
from secateur.train.identity import Identity
from secateur.train.learnt import learnt_state, load_learnt_
from secateur.train.log import EpochRow, Stop, to_jsonl
from secateur.train.random_state import RandomState, capture, restore
from secateur.train.shared_checkpoint import Shelf, latest
from secateur.train.snapshot import not_finite, restore_, snapshot, tensors_of
from secateur.train.staging import Staging
from secateur.train.step import NotFinite, Stepper, finite, load_optimizer_, optimizer_state
from secateur.train.writer import Writer

Validate = Callable[[nn.Module], float]
LENT = ("best/weights/", "random/")
"""Tensors of a checkpoint that nobody writes into: better weights and later states are new ones."""


@dataclass(slots=True)
class Position:
    """Where a run stands. epoch: from 0. step, samples: since the start. batches, steps, loss_sum,
    seconds: of this epoch. labels: digest of the last batch's, at a checkpoint within the epoch."""

    epoch: int = 0
    step: int = 0
    samples: int = 0
    batches: int = 0
    steps: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    labels: str = ""

    def count_(self, *, batches: int, loss: float, seconds: float) -> None:
        """One more optimizer step, over so many batches; `seconds` since the epoch's start."""
        self.step, self.steps = self.step + 1, self.steps + 1
        self.batches += batches
        self.loss_sum += loss
        self.seconds = seconds


@dataclass(slots=True)
class Best:
    """The best epoch so far (from 1, 0 for the start), and how many epochs ago that was.

    weights: those to go back to; without validation those of the last epoch.
    """

    weights: dict[str, Any]
    metric: float | None = None
    epoch: int = 0
    since: int = 0


@dataclass(slots=True)
class Run:
    """The changing part of a run; `stepper` knows the model, the optimizer and the settings.

    saving_s: for which the training stood still for checkpoints since the last row.
    """

    stepper: Stepper
    data: Iterable[Any]
    validate: Validate | None
    folder: Path | None
    best: Best
    identity: Identity
    position: Position = field(default_factory=Position)
    rows: list[EpochRow] = field(default_factory=list)
    stopped: Stop | None = None
    saved: int = 0
    epoch_start: RandomState = field(default_factory=dict)
    now: RandomState = field(default_factory=dict)
    saving_s: float = 0.0
    writer: Writer = field(init=False)
    _staging: Staging | None = field(init=False, repr=False)

    def __post_init__(self) -> None:
        beside = self.stepper.settings.async_checkpoints
        self.writer = Writer(self.stepper.parallel.world, beside)
        self._staging = Staging() if beside else None

    def resume_(self) -> int | None:
        """Take up the newest whole checkpoint; its step, None when there is none.

        Raises: TrainError when it was made by other settings, or for another model or data.
        """
        if self.folder is None:
            return None
        names = {name for name, _ in self.stepper.model.named_parameters()}
        tree = latest(self.folder, self.stepper.parallel, parameters=names)
        if tree is None:
            return None
        self.identity.check(tree["identity"], self.folder)
        training, companions = self.stepper.training, self.stepper.companions
        for companion, state in zip(companions, tree["companions"], strict=True):
            companion.rebuild_(state, training)
        restore_(training.model, tree["model"])
        load_optimizer_(training.optimizer, tree["optimizer"])
        load_learnt_(self.stepper.objective, tree["objective"])
        if tree["scaler"]:
            self.stepper.precision.scaler.load_state_dict(tree["scaler"])
        self.position, self.best = Position(**tree["position"]), Best(**tree["best"])
        self.rows = [EpochRow(**row) for row in tree["rows"]]
        self.stopped, self.saved = tree["stopped"], tree["saved"]
        self.epoch_start, self.now = tree["random"]["epoch_start"], tree["random"]["now"]
        self._tell_training_()
        for companion, state in zip(companions, tree["companions"], strict=True):
            companion.load_state_(state, training)
        restore(self.now, self.data)
        return self.position.step

    def train_epoch_(self, on_step: Callable[[int, float], None]) -> EpochRow:
        """Train to the end of the running epoch, validate, decide, save.

        Raises: NotFinite, TrainError when there is no data.
        """
        position, settings = self.position, self.stepper.settings
        batches = self._batches()
        started = time.monotonic() - position.seconds
        while not self._epoch_is_full():
            group = list(islice(batches, settings.accumulate))
            if not group:
                break
            loss = self.stepper.take_step_(group, step=position.step)
            position.samples += sum(samples_in(batch) for batch in group)
            position.count_(batches=len(group), loss=loss, seconds=time.monotonic() - started)
            self.writer.look_()
            self._after_step_()
            if settings.checkpoint_every and position.step % settings.checkpoint_every == 0:
                position.labels = labels_digest(group[-1])
                self._save()
            on_step(position.step, loss)
        return self._finish_epoch_(started)

    def _after_step_(self) -> None:
        """Let the companions act; a model that one has cut has no better weights to go back to."""
        training = self.stepper.training
        cuts = training.cuts
        self._tell_training_()
        for companion in self.stepper.companions:
            companion.after_step_(training)
        if training.cuts != cuts:
            self.stepper.parallel.after_cut_()
            self.best = Best(snapshot(training.model))

    def _tell_training_(self) -> None:
        training, position = self.stepper.training, self.position
        training.step, training.epoch = position.step, position.epoch
        training.samples = position.samples

    def _batches(self) -> Iterator[Any]:
        """The rest of this epoch's batches."""
        set_epoch_(self.data, self.position.epoch)
        self.stepper.model.train()
        if self.position.batches == 0:
            self.epoch_start = capture(self.data)
            return iter(self.data)
        restore(self.epoch_start, self.data)
        batches = iter(self.data)
        # read before the interruption; only the last of them is held
        last = deque(islice(batches, self.position.batches), maxlen=1)
        restore(self.now, self.data)
        if not last or labels_digest(last[0]) != self.position.labels:
            warnings.warn(
                "the data came in another order than before the interruption, so this run will "
                "not end exactly as an undisturbed one; use TensorBatches(x, y, batch_size=64), "
                "or a DataLoader whose order follows its generator or set_epoch",
                stacklevel=2,
            )
        return batches

    def _epoch_is_full(self) -> bool:
        limit = self.stepper.settings.steps_per_epoch
        return limit is not None and self.position.steps >= limit

    def _finish_epoch_(self, started: float) -> EpochRow:
        position, metric = self.position, None
        if position.steps == 0:
            raise TrainError(
                "the data gave no batch; give at least one, and a source that can "
                "be read once an epoch"
            )
        spoiled = not_finite(self.stepper.model)
        if spoiled is not None:
            raise NotFinite(f"the weights of {spoiled} became NaN or infinite")
        training = self.stepper.training
        for companion in self.stepper.companions:
            companion.after_epoch_(training)
        with ExitStack() as stack:
            for companion in self.stepper.companions:
                stack.enter_context(companion.while_validating(training))
            if self.validate is not None:
                metric = finite(self._validated(self.validate), "validation metric")
            row = EpochRow(
                epoch=position.epoch + 1,
                step=position.step,
                loss=position.loss_sum / position.steps,
                metric=metric,
                lr=self.stepper.lr,
                seconds=time.monotonic() - started,
                saving_s=self.saving_s,
            )
            self.saving_s = 0.0
            self.rows.append(row)
            self._keep_best_(row)
        self.position = Position(
            epoch=position.epoch + 1, step=position.step, samples=position.samples
        )
        self.stopped = self._reason_to_stop()
        self._save()
        return row

    def _validated(self, validate: Validate) -> float:
        """What the metric is on every rank: the number that rank 0 has."""
        model, parallel = self.stepper.model, self.stepper.parallel
        parallel.settle_(model)
        with evaluating(model), torch.no_grad():
            metric = float(validate(model))
        parallel.settle_(model)
        return parallel.world.first(metric, what="the validation metric")

    def _keep_best_(self, row: EpochRow) -> None:
        least = self.stepper.settings.min_improvement
        if row.metric is None or self.best.metric is None or row.metric > self.best.metric + least:
            self.best = Best(snapshot(self.stepper.model), row.metric, row.epoch)
        else:
            self.best.since += 1

    def _reason_to_stop(self) -> Stop | None:
        settings = self.stepper.settings
        if self.position.epoch >= settings.epochs:
            return "epochs"
        return "patience" if settings.patience and self.best.since >= settings.patience else None

    def _save(self) -> None:
        """Hold everything still, and write it: beside the training, unless the settings say no."""
        if self.folder is None:
            return
        begun = time.monotonic()
        self.writer.finish_()
        self.saved += 1
        tell = partial(write_text, self.folder / "log.jsonl", to_jsonl(self.rows))
        shelf = Shelf(self.folder, self.stepper.parallel, self._staging)
        write = shelf.held(self._tree(), number=self.saved, lent=LENT, then=tell)
        self.writer.begin_(write)
        self.saving_s += time.monotonic() - begun

    def _tree(self) -> dict[str, Any]:
        """All that a run is taken up from."""
        return {
            "identity": self.identity.tree(),
            "companions": [companion.state() for companion in self.stepper.companions],
            "objective": learnt_state(self.stepper.objective),
            "model": tensors_of(self.stepper.model),
            "optimizer": optimizer_state(self.stepper.optimizer),
            "scaler": self.stepper.precision.scaler.state_dict(),
            "position": asdict(self.position),
            "best": {name: getattr(self.best, name) for name in Best.__slots__},
            "rows": [row.to_json() for row in self.rows],
            "stopped": self.stopped,
            "saved": self.saved,
            "random": {"epoch_start": self.epoch_start, "now": capture(self.data)},
        }


def length(data: object) -> int | None:
    """Batches an epoch, None when the data cannot tell."""
    try:
        return len(data)  # type: ignore[arg-type]
    except TypeError:
        return None
