"""Masks: zeros that stay zero while a model trains, and the schedules that place them.

The second road beside the cut, for research on training, for storage, and for the few runtimes
that profit. A mask is an ordinary parametrization of torch; `fold_` turns it into plain zeros.
"""

from secateur.masks.dynamic import DynamicSparsity
from secateur.masks.erdos_renyi import erdos_renyi
from secateur.masks.gradual import GradualMasking
from secateur.masks.held import keep_zeros_
from secateur.masks.masking import mask_
from secateur.masks.parametrization import Mask, fold_, unmask_
from secateur.masks.plan import MaskPlan
from secateur.masks.rewinding import Rewinding, ticket_sparsities
from secateur.masks.sharded import mask_shards_
from secateur.masks.sharded_plan import ShardedMaskPlan
from secateur.masks.statistics import LayerSparsity, sparsity
from secateur.masks.vector import prune_vector

__all__ = [
    "DynamicSparsity",
    "GradualMasking",
    "LayerSparsity",
    "Mask",
    "MaskPlan",
    "Rewinding",
    "ShardedMaskPlan",
    "erdos_renyi",
    "fold_",
    "keep_zeros_",
    "mask_",
    "mask_shards_",
    "prune_vector",
    "sparsity",
    "ticket_sparsities",
    "unmask_",
]
