"""Recovery: fine-tune a cut model, measure it, and the loop that prunes and retrains by turns.

Everything takes a plain module and plain callables, so each part works without the others.
"""

from secateur.core.errors import DivergedError
from secateur.train.batches import TensorBatches
from secateur.train.evaluate import Evaluation, accuracy, evaluate, mean_loss
from secateur.train.finetune import Callbacks, finetune
from secateur.train.iterative import prune_iteratively
from secateur.train.log import EpochRow, TrainLog
from secateur.train.loop_values import (
    Attempt,
    IterativeResult,
    IterativeSettings,
    IterativeStep,
    PruneStep,
)
from secateur.train.settings import FinetuneSettings

__all__ = [
    "Attempt",
    "Callbacks",
    "DivergedError",
    "EpochRow",
    "Evaluation",
    "FinetuneSettings",
    "IterativeResult",
    "IterativeSettings",
    "IterativeStep",
    "PruneStep",
    "TensorBatches",
    "TrainLog",
    "accuracy",
    "evaluate",
    "finetune",
    "mean_loss",
    "prune_iteratively",
]
