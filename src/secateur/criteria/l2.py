"""L2 norm: ``I_u = sqrt(sum_r w_ur^2)`` over everything that is removed with the unit.

Source: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, section 3.3, arXiv
2301.12900: the norm of all parameters that are coupled. Deviation: its root, for the scale.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
POWER = 2.0
TERM = torch.square
"""What is summed under the root."""


def element(weights: Tensor) -> Tensor:
    """Square of each weight."""
    return weights.square()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Euclidean norm of the weights."""
    norm_U: Tensor = torch.linalg.vector_norm(matrix.w_UR, dim=1)
    return norm_U
