"""Complex numbers as pairs of reals, and back."""

from __future__ import annotations

from secateur.graph.call import OpCall, handles
from secateur.graph.types import Dims, fresh, pin

PAIR = "real and imaginary parts"


@handles("view_as_complex", "view_as_complex_copy")
def view_as_complex(call: OpCall) -> Dims:
    x = call.dims("self")
    pin(x[-1], PAIR)
    return x[:-1]


@handles("view_as_real", "view_as_real_copy")
def view_as_real(call: OpCall) -> Dims:
    return (*call.dims("self"), fresh(2, PAIR))
