"""First-order Taylor of single weights: ``I_u = sum_r (g_ur w_ur)^2``, averaged over the batches.

What the loss changes by, squared, when one weight goes, summed over the weights of a unit.

Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equation 8,
arXiv 1906.10771; `taylor` is their equation 7. Deviation: every member of the group counts.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Squared first-order change of the loss when each weight goes."""
    return (weights * evidence).square()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
