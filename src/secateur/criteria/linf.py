"""L-infinity norm: ``I_u = max_r |w_ur|`` over everything that is removed with the unit.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1, arXiv
1608.08710, names the norm of a filter as the measure; He et al., Soft Filter Pruning, IJCAI 2018,
equation 1, arXiv 1808.06866, writes it for any p. Deviation: every member of the group counts.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
POWER = math.inf


def element(weights: Tensor) -> Tensor:
    """Magnitude of each weight."""
    return weights.abs()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """The largest absolute weight; 0 of a unit without weights."""
    if matrix.w_UR.shape[1] == 0:
        return torch.zeros(len(matrix.w_UR), dtype=matrix.w_UR.dtype)
    norm_U: Tensor = torch.linalg.vector_norm(matrix.w_UR, math.inf, dim=1)
    return norm_U
