"""GraSP, gradient signal preservation: ``I_j = w_j (H g)_j``, the loss of gradient flow.

``S(-w) = -w * H g`` is what the squared norm of the gradient changes by when a weight goes, up to
a factor of two. Weights with the lowest S hold the flow together, so the importance is ``-S``.

Source: Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020,
equation 8 and algorithm 1, arXiv 2002.07376. Deviations: the loss is the caller's, where the
paper's divides the logits by a temperature of 200; a unit has the sum over its weights, of every
member of the group.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "hessian_gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Gradient flow that each weight holds; evidence is ``H g``."""
    return weights * evidence


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
