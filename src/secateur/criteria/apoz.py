"""APoZ: ``I_u = 1 - APoZ_u``, with the average percentage of zeros among a unit's activations.

A unit that is zero for most inputs says little.

Source: Hu et al., Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
Architectures, 2016, equation 1, arXiv 1607.03250. Deviations: one minus it, so that higher stays; a
unit's activations are what the next layers read of it, averaged over those layers. Behind a
function that is never zero, such as GELU, all units score 1 and nothing is told apart.
"""

from __future__ import annotations

from collections.abc import Iterable

from jaxtyping import Float
from torch import Tensor

from secateur.criteria.matrices import Context, UnitMatrix

NEEDS = frozenset({"activations"})


def of_group(matrices: Iterable[UnitMatrix], context: Context) -> Float[Tensor, " units"]:
    """The fraction of each unit's activations that is not zero."""
    assert context.activations is not None
    return 1 - context.activations.zero_U
