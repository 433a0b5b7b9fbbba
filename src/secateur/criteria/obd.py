"""Optimal brain damage: ``s_u = sum_r h_ur w_ur^2 / 2`` with h the diagonal of the Hessian.

The second-order change of the loss when a weight goes, at a minimum, where the first order is zero,
and with weights that do not act on each other.

Source: LeCun, Denker, Solla, Optimal Brain Damage, NeurIPS 1989, equation 5 (before arXiv).
Deviations: h is estimated by Hessian-vector products with random signs (`criteria.curvature`)
where the paper passes second derivatives back through the net, so it may be negative; and every
member of the group counts.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "hessian_diagonal"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Second-order change of the loss when each weight goes; evidence is the diagonal."""
    return evidence * weights.square() / 2


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
