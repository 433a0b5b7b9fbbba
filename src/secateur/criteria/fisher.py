"""Fisher information: ``I_u = 1/(2N) sum_n sum_r g_nur^2 w_ur^2`` over N single samples.

The second-order change of the loss with the empirical Fisher information for the Hessian, which it
is near where the model fits its data, and of which only the diagonal is kept.

Source: Theis et al., Faster gaze prediction with dense networks and Fisher pruning, 2018, equations
7 and 8, arXiv 1801.05787. Deviation: every member of the group counts. Each sample costs a backward
pass: a mean over a batch would square the mean of gradients, which cancel, and not average squares.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "sample_gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Change of one sample's loss when each weight goes; evidence is that sample's gradient."""
    return (weights * evidence).square() / 2


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
