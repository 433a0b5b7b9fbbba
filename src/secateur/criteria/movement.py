"""Movement: ``S_j = - sum_t g_j(t) w_j(t)``: weights that training moves away from zero stay.

Of one model it is one step's movement, with the gradient averaged over the batches and its sign
kept. Over a training it is the sum of the scores of the steps: scores add up, those of units too.

Source: Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, NeurIPS 2020, section 4,
arXiv 2005.07683. Deviations: without the learning rate alpha_S, one number for the whole net; a
unit has the sum over its weights, of every member of the group.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "mean_gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Movement of each weight under its mean gradient; negative towards zero."""
    return -weights * evidence


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
