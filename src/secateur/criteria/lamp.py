"""LAMP: ``s(u; W) = W[u]^2 / sum_{v >= u} W[v]^2``, weights sorted so that ``W[u]^2`` ascends.

What a weight is worth among those of its tensor that would outlive it; the largest of every tensor
scores 1, so that one threshold over all tensors never empties one.

Source: Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, section 3,
equation 3, arXiv 2010.07611. Deviation: of a group, ``W[u]^2`` is the squared norm of all that is
removed with unit u, and the units of the group take the place of the weights of a tensor.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
POINTWISE = False


def element(weights: Tensor) -> Tensor:
    """The score of each weight of a whole tensor; float64.

    >>> element(torch.tensor([2.0, -1.0, 3.0])).tolist()[1:]
    [0.07142857142857142, 1.0]
    """
    squares = weights.detach().double().square().flatten()
    ascending, order = squares.sort(stable=True)
    outliving = ascending.flip(0).cumsum(0).flip(0)
    scores = torch.empty_like(squares)
    # zeros alone have nothing to be compared with
    scores[order] = torch.where(outliving > 0, ascending / outliving, 0.0)
    return scores.reshape(weights.shape)


def of_group(matrices: Iterable[UnitMatrix], context: Context) -> Float[Tensor, " units"]:
    """The score of each unit by the squared norm of all its weights."""
    square_U = torch.zeros(context.units, dtype=torch.float64)
    for matrix in matrices:
        square_U += matrix.w_UR.double().square().sum(1).cpu()
    return element(square_U.sqrt())
