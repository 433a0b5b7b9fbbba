"""What can be said of a training within a stage: the fields of `FinetuneSettings`, and a teacher.

`prune`, `mask` and `recover` stages all hold one of these; some of its fields are flags.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from secateur.cli.distil_settings import DistilSettings
from secateur.cli.flags import section
from secateur.train.settings import FinetuneSettings

RECOVERY = {
    "epochs": "passes over the training data",
    "optimizer": "which optimizer",
    "lr": "the highest learning rate",
    "momentum": "of sgd",
    "weight_decay": "of the optimizer",
    "schedule": "how the learning rate changes",
    "warmup": "share of all steps in which the learning rate rises",
    "accumulate": "batches for one optimizer step",
    "clip_norm": "largest norm of all gradients together",
    "precision": "of the computation, under autocast",
    "patience": "stop after so many epochs without a better metric",
    "steps_per_epoch": "shorten an epoch to so many steps",
    "checkpoint_every": "optimizer steps between checkpoints, besides one after each epoch",
    "async_checkpoints": "train on while a checkpoint is written",
    "ema": "decay of an average of the weights to validate and to end with",
    "rewind_to": "skip so many epochs of the schedule and train the rest",
}


@dataclass(frozen=True, slots=True)
class Recovery(FinetuneSettings):
    """How to fine-tune, and whom to follow while doing so."""

    distil: DistilSettings | None = section(
        DistilSettings,
        help={
            "teacher": "follow a teacher: dense, or a model as --model takes it",
            "hard": "weight of the labels beside the teacher",
        },
        absent=True,
    )

    @property
    def training(self) -> FinetuneSettings:
        """Only what `finetune` is told."""
        return FinetuneSettings(**{f.name: getattr(self, f.name) for f in fields(FinetuneSettings)})


def check_ordered(begin: str, first: float, end: str, last: float) -> None:
    """Raises: ValueError for what are no two shares of a training, in their order."""
    if not 0 <= first <= last <= 1:
        raise ValueError(
            f"{begin}={first:g} and {end}={last:g} are shares of the training, in their order"
        )
