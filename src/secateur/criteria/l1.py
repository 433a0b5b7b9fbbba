"""L1 norm: ``I_u = sum_r |w_ur|`` over everything that is removed with the unit.

Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1, arXiv
1608.08710; of single weights: Han et al., Learning both Weights and Connections for Efficient
Neural Networks, NeurIPS 2015, section 3, arXiv 1506.02626. Deviation: there only the filter itself
counts, here every member of the group does.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
POWER = 1.0
TERM = torch.abs
"""What is summed."""


def element(weights: Tensor) -> Tensor:
    """Magnitude of each weight."""
    return weights.abs()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum of absolute weights."""
    norm_U: Tensor = torch.linalg.vector_norm(matrix.w_UR, 1, dim=1)
    return norm_U
