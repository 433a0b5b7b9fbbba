"""Masks: zeros that stay zero while a model trains, and the schedules that place them.

The second road beside the cut, for research on training, for storage, and for the few runtimes
that profit. A mask is an ordinary parametrization of torch; `fold_` turns it into plain zeros.
"""

from secateur.masks.masking import mask_
from secateur.masks.parametrization import Mask, fold_, unmask_
from secateur.masks.plan import MaskPlan
from secateur.masks.statistics import LayerSparsity, sparsity
from secateur.masks.vector import prune_vector

__all__ = [
    "LayerSparsity",
    "Mask",
    "MaskPlan",
    "fold_",
    "mask_",
    "prune_vector",
    "sparsity",
    "unmask_",
]
