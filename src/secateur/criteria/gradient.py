"""Gradient norm: ``I_u = sqrt(sum_r g_ur^2)``, how strongly the loss reacts to the unit's weights.

The gradient is that of one calibration batch; scores are averaged over the batches, so that
gradients of opposite sign do not cancel.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"gradient"})
POWER = 2.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Magnitude of each gradient."""
    return evidence.abs()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Euclidean norm of the gradients."""
    assert matrix.e_UR is not None
    norm_U: Tensor = torch.linalg.vector_norm(matrix.e_UR, dim=1)
    return norm_U
