"""Geometric median (FPGM): ``I_u = sum_v || w_u - w_v ||_2``, the sum over all units v of a group.

A unit near the geometric median of all of them says what the others say as well, whatever its
norm, and can go.

Source: He et al., Filter Pruning via Geometric Median for Deep Convolutional Neural Networks
Acceleration, CVPR 2019, equation 6, arXiv 1811.00250. Deviation: w_u is everything that is removed
with the unit, all members of the group, not the filter alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
_ENTRIES = 1 << 24
"""Distances held at a time: 128 MiB of float64."""


def of_group(matrices: Iterable[UnitMatrix], context: Context) -> Float[Tensor, " units"]:
    """The sum of each unit's distances to all units of its group."""
    units = context.units
    sums = []
    height = max(1, _ENTRIES // max(units, 1))
    for start in range(0, units, height):
        block = slice(start, start + height)
        square_BU = torch.zeros(min(height, units - start), units, dtype=torch.float64)
        for matrix in matrices:
            w_UR = matrix.w_UR.double()
            norm_U = w_UR.square().sum(1)
            # |a|^2 + |b|^2 - 2ab: in float64 exact to a hundred-millionth of the norms
            square_BU += (norm_U[block, None] + norm_U - 2 * w_UR[block] @ w_UR.T).cpu()
        square_BU.diagonal(start).zero_()
        sums.append(square_BU.clamp_min(0).sqrt().sum(1))
    return torch.cat(sums)
