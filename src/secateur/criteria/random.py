"""Random importance: the baseline that every other criterion has to beat.

One uniform number per unit, from the seed and the group's id alone, so a group's ranking does not
change when another group does. Works without weights, on meta.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS: frozenset[str] = frozenset()
POWER = 1.0


def element(weights: Tensor, *, generator: torch.Generator) -> Tensor:
    """Uniform in [0, 1) for each weight; the generator is on the CPU."""
    drawn = torch.rand(weights.shape, generator=generator)
    return drawn.to(weights.device)


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Uniform in [0, 1)."""
    return torch.rand(context.units, dtype=torch.float64, generator=context.generator)
