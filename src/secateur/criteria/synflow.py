"""SynFlow: ``S_j = |theta_j| dR/d|theta_j|`` with ``R = 1^T (prod_l |theta_l|) 1``, without data.

How much of all flow from the inputs to the outputs goes through a weight. Flow is conserved from
layer to layer, so that pruning a little and scoring again never empties a layer: make several
plans in a row (`prune_iteratively`) rather than one.

Source: Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic
flow, NeurIPS 2020, equations 1 and 2, arXiv 2006.05467. Deviations: R is the sum of the model's
own outputs, whatever its layers are, in float64 (`criteria.synaptic`); a unit has the sum over its
weights, of every member of the group.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "synaptic_gradient"})
POWER = 1.0


def element(weights: Tensor, evidence: Tensor) -> Tensor:
    """Flow through each weight; evidence is the gradient of R by its magnitude."""
    return (weights * evidence).abs()


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Sum over the weights of each unit."""
    assert matrix.e_UR is not None
    return element(matrix.w_UR, matrix.e_UR).sum(1)
