"""Gradient norm: ``I_u = sqrt(sum_r g_ur^2)``, how strongly the loss reacts to the unit's weights.

The gradient is that of one calibration batch; scores are averaged over the batches, so that
gradients of opposite sign do not cancel.
"""

from __future__ import annotations

from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"gradient"})
POWER = 2.0


def importance(matrix: UnitMatrix, context: Context) -> Tensor:
    """Euclidean norm of the gradients."""
    assert matrix.g_UR is not None
    return matrix.g_UR.square().sum(dim=1).sqrt()
