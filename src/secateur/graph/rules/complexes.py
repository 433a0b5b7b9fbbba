"""Complex numbers as pairs of reals, and back."""

from __future__ import annotations

from secateur.graph.call import OpCall, dims_of, handles
from secateur.graph.types import Dims, fresh, pin

PAIR = "real and imaginary parts"


@handles("view_as_complex", "view_as_complex_copy")
def view_as_complex(call: OpCall) -> Dims:
    """Strides must be even: where pairs are read out of wider rows, the rows keep their width."""
    source = call.get("self")
    x = dims_of(source)
    pin(x[-1], PAIR)
    if source._base is not None and not source.is_contiguous():
        pin(dims_of(source._base)[-1], "pairs are read out of it, so its width must stay even")
    return x[:-1]


@handles("view_as_real", "view_as_real_copy")
def view_as_real(call: OpCall) -> Dims:
    return (*call.dims("self"), fresh(2, PAIR))
