"""How to fine-tune, as one frozen value: checked when made, the same fields as in a recipe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from secateur.train.schedules import SCHEDULES

OPTIMIZERS = ("sgd", "adamw")
PRECISIONS = ("float32", "bfloat16", "float16")
# Fields that change nothing about the numbers, so a resumed run may change them.
HARMLESS = ("checkpoint_every", "async_checkpoints", "progress", "device")


@dataclass(frozen=True, slots=True)
class FinetuneSettings:
    """epochs: passes over the data. optimizer: "sgd" (Nesterov-free momentum) or "adamw".

    lr: the highest learning rate; `schedule` is constant, cosine, linear or one_cycle and
    `warmup` the share of all steps in which it rises. accumulate: batches for one optimizer
    step. clip_norm: largest norm of all gradients together. precision: "bfloat16" and "float16"
    compute under autocast, weights stay as they are. patience: stop after so many epochs without
    the metric rising by more than `min_improvement`. restore_best: end with the weights of the
    best epoch. steps_per_epoch: needed when the data has no length, else it shortens an epoch.
    checkpoint_every: optimizer steps between checkpoints, besides the one after each epoch.
    async_checkpoints: the training goes on while a checkpoint is written; it is copied into main
    memory first, which takes as much of that as the checkpoint has.
    ema: decay of an average of the weights to validate and to end with, see `Ema`. rewind_to: skip
    so many epochs of the schedule and train the rest: learning-rate rewinding, see `rewound`.
    seed: for torch inside the run, None to use the caller's generators. device: where to train,
    None to stay where the model is. progress: a bar on stderr, if that is a terminal, on rank 0.
    """

    epochs: int = 10
    optimizer: str = "sgd"
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "cosine"
    warmup: float = 0.0
    accumulate: int = 1
    clip_norm: float | None = None
    precision: str = "float32"
    patience: int | None = None
    min_improvement: float = 0.0
    restore_best: bool = True
    steps_per_epoch: int | None = None
    checkpoint_every: int | None = None
    async_checkpoints: bool = True
    ema: float | None = None
    rewind_to: int = 0
    seed: int | None = 0
    device: str | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        _one_of("optimizer", self.optimizer, OPTIMIZERS)
        _one_of("schedule", self.schedule, SCHEDULES)
        _one_of("precision", self.precision, PRECISIONS)
        for name in ("epochs", "accumulate"):
            _at_least(name, getattr(self, name), 1)
        for name in ("patience", "steps_per_epoch", "checkpoint_every"):
            if getattr(self, name) is not None:
                _at_least(name, getattr(self, name), 1)
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"lr must be a positive number, not {self.lr}")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup is a share of all steps in [0, 1), not {self.warmup}")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema is a decay in (0, 1), for example 0.999, not {self.ema}")
        if not 0 <= self.rewind_to < self.epochs:
            raise ValueError(
                f"rewind_to={self.rewind_to}: an epoch of the schedule, below epochs={self.epochs}"
            )
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm must be positive or None, not {self.clip_norm}")

    def decisive(self) -> dict[str, Any]:
        """The fields that decide the numbers: a checkpoint can be resumed only under the same."""
        return {key: value for key, value in asdict(self).items() if key not in HARMLESS}


def rewound(original: FinetuneSettings, *, to: int) -> FinetuneSettings:
    """Settings that train epochs `to` + 1, ... again, with the rates that they had originally.

    Learning-rate rewinding: after a cut the weights stay and the schedule goes back.
    Source: Renda, Frankle & Carbin, Comparing Rewinding and Fine-tuning in Neural Network Pruning,
    ICLR 2020, arXiv 2003.02389, section 3.

    >>> rewound(FinetuneSettings(epochs=10, lr=0.1), to=7).rewind_to
    7
    """
    return replace(original, rewind_to=to)


def _one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"unknown {name} {value!r}; there are: {', '.join(known)}")


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value}")
