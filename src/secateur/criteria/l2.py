"""L2 norm: ``I_u = sqrt(sum_r w_ur^2)`` over everything that is removed with the unit.

Source: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023, section 3.3, arXiv
2301.12900: the norm of all parameters that are coupled. Deviation: its root, for the scale.
"""

from __future__ import annotations

from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights"})
POWER = 2.0


def importance(matrix: UnitMatrix, context: Context) -> Tensor:
    """Euclidean norm of the weights."""
    return matrix.w_UR.square().sum(dim=1).sqrt()
