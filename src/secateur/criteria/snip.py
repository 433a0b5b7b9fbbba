"""SNIP, connection sensitivity: ``s_j = |g_j w_j| / sum_k |g_k w_k|`` with the mean gradient g.

How much the loss reacts to a connection, whatever its sign, told before training.

Source: Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019,
equations 4 and 5, arXiv 1810.02340. Deviations: without the divisor, which is one number for the
whole net and changes no order; a unit has the sum over its weights, of every member of the group.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "mean_gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Sensitivity of the mean loss to each weight; evidence is its mean gradient."""
    return (weights * evidence).abs()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
