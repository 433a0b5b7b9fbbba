"""Fourier transforms: every output depends on all positions of a transformed dimension."""

from __future__ import annotations

from secateur.graph.call import OpCall, handles, wrap
from secateur.graph.types import Dims, fresh, pin, size_of

TRANSFORMED = "a Fourier transform over it"


@handles("_fft_r2c", "_fft_c2r", "_fft_c2c")
def transform(call: OpCall) -> Dims:
    x = list(call.dims("self"))
    for dim in (wrap(int(d), len(x)) for d in call.get("dim")):
        pin(x[dim], TRANSFORMED)
        size = int(call.out.shape[dim])
        if size != size_of(x[dim]):
            x[dim] = fresh(size, TRANSFORMED)
    return tuple(x)
