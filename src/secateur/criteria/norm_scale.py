"""Normalisation scale: ``I_u = |gamma_u|`` of the normalisation layers that a unit goes through.

Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
section 3, arXiv 1708.06519. Deviations: the scales of all normalisations of the group add up,
layer norm and its kin count as well, and no penalty on the scales comes before (the schedules of
`train` have one). A group without a normalisation has no score and is left whole.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "norm_scale"})
POWER = 1.0


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum of the absolute scales; of a unit of several channels, of all of them."""
    return matrix.w_UR.abs().sum(1)
