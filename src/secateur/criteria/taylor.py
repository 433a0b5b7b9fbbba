"""First-order Taylor: ``I_u = |sum_r g_ur w_ur|``, the change of the loss when the unit goes.

Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, arXiv
1906.10771, section 3: the form for a gate on the whole unit, where the products are summed before
they are squared. Deviations: the absolute value stands for the square, as in Molchanov et al.,
ICLR 2017, arXiv 1611.06440, so that members and batches add up in units of the loss; and every
member of the group is such a gate, not only one layer.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"weights", "gradient"})
POWER = 1.0


def importance(matrix: UnitMatrix, context: Context) -> Float[Tensor, " units"]:
    """Absolute first-order change of the loss."""
    assert matrix.e_UR is not None
    return (matrix.w_UR * matrix.e_UR).sum(dim=1).abs()
