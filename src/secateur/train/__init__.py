"""Recovery: fine-tune a cut model, measure it, and the loop that prunes and retrains by turns.

Everything takes a plain module and plain callables, so each part works without the others.
"""

from secateur.core.errors import DivergedError
from secateur.train.batches import TensorBatches
from secateur.train.companion import Companion, Training
from secateur.train.distil import Distilled, distilled
from secateur.train.distil_attention import AttentionMaps, AttentionTransfer
from secateur.train.distil_features import Features
from secateur.train.distil_outputs import Logits, Outputs
from secateur.train.ema import Ema
from secateur.train.evaluate import Evaluation, accuracy, evaluate, mean_loss
from secateur.train.finetune import Callbacks, finetune
from secateur.train.gradual import GradualPruner
from secateur.train.gradual_values import CutRow, GradualLog, GradualSettings
from secateur.train.iterative import prune_iteratively
from secateur.train.log import EpochRow, TrainLog
from secateur.train.loop_values import (
    Attempt,
    IterativeResult,
    IterativeSettings,
    IterativeStep,
    PruneStep,
)
from secateur.train.masking import Masking
from secateur.train.norms import reestimate_norms_
from secateur.train.penalties import L1, GroupLasso, GrowingPenalty
from secateur.train.prune_while_training import Shrinking, Shrunk, prune_while_training
from secateur.train.settings import FinetuneSettings, rewound
from secateur.train.soft_pruning import SoftPruning

__all__ = [
    "L1",
    "Attempt",
    "AttentionMaps",
    "AttentionTransfer",
    "Callbacks",
    "Companion",
    "CutRow",
    "Distilled",
    "DivergedError",
    "Ema",
    "EpochRow",
    "Evaluation",
    "Features",
    "FinetuneSettings",
    "GradualLog",
    "GradualPruner",
    "GradualSettings",
    "GroupLasso",
    "GrowingPenalty",
    "IterativeResult",
    "IterativeSettings",
    "IterativeStep",
    "Logits",
    "Masking",
    "Outputs",
    "PruneStep",
    "Shrinking",
    "Shrunk",
    "SoftPruning",
    "TensorBatches",
    "TrainLog",
    "Training",
    "accuracy",
    "distilled",
    "evaluate",
    "finetune",
    "mean_loss",
    "prune_iteratively",
    "prune_while_training",
    "reestimate_norms_",
    "rewound",
]
