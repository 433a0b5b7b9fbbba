"""Tensors made from sizes alone: fresh dimensions, pinned where values depend on positions."""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, handles
from secateur.graph.rules.pointwise import pointwise
from secateur.graph.types import Dims, fresh_all

POSITIONS = "positions along it"


@handles(
    "arange",
    "bartlett_window",
    "blackman_window",
    "eye",
    "fft_fftfreq",
    "fft_rfftfreq",
    "hamming_window",
    "hann_window",
    "kaiser_window",
    "linspace",
    "logspace",
    "randperm",
    "range",
    "tril_indices",
    "triu_indices",
    "vander",
    "_dim_arange",
    "_shape_as_tensor",
)
def positional(call: OpCall) -> Dims:
    """A smaller one is not a part of a larger one, in general."""
    return fresh_all(call.out.shape, POSITIONS)


@handles(
    "empty",
    "empty_permuted",
    "empty_strided",
    "full",
    "new_empty",
    "new_empty_strided",
    "new_full",
    "new_ones",
    "new_zeros",
    "ones",
    "rand",
    "randint",
    "randn",
    "scalar_tensor",
    "zeros",
    "_efficientzerotensor",
)
def blank(call: OpCall) -> Dims:
    """Every index is like every other."""
    return fresh_all(call.out.shape)


@handles("normal", "normal_functional")
def normal(call: OpCall) -> Dims | list[Dims | None]:
    """From tensors of means or deviations, or from sizes."""
    if any(isinstance(call.get(name), Tensor) for name in ("self", "mean", "std")):
        return pointwise(call)
    return fresh_all(call.out.shape)
