"""Mean activation: ``I_u = 1/N sum_n |a_nu|`` over all positions n of the calibration data.

Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference,
ICLR 2017, section 2.2, arXiv 1611.06440. Deviations: magnitudes, which are the activations
themselves behind a ReLU, and mean something behind other functions as well; a unit's activations
are what the next layers read of it, averaged over those layers.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"activations"})


def of_group(matrices: Iterable[UnitMatrix], context: Context) -> Float[Tensor, " units"]:
    """The mean magnitude of each unit's activations."""
    assert context.activations is not None
    return context.activations.magnitude_U
