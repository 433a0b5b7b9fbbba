"""Activation-weighted magnitude (Wanda): ``S_ij = |W_ij| * || X_j ||_2``.

X_j is the j-th input feature at all positions of the calibration data: a small weight on a large
input matters as much as a large weight on a small one.

Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024,
equation 1, arXiv 2306.11695, which compares the weights of one output with each other; for units
An et al., Fluctuation-based Adaptive Structured Pruning, AAAI 2024, arXiv 2312.11983, their
baseline Wanda-sp. Deviations: convolutions count as well, a feature being a channel; a unit has
the sum over its weights, of every member of the group that multiplies something.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "input_norm"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Magnitude of each weight times the norm of its input."""
    return weights.abs() * evidence


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
