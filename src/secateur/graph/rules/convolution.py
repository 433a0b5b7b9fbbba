"""Convolutions: input channels are groups x in-per-group, output channels groups x out-per-group.

A kernel of size one with stride one and no padding keeps its spatial dimensions' types.
"""

from __future__ import annotations

from secateur.graph.call import OpCall, dims_of, handles
from secateur.graph.types import Dims, fresh, fresh_all, pin, size_of, unify

SPATIAL = "a spatial extent"


@handles("convolution", "_convolution", "mkldnn_convolution", "convolution_overrideable")
def convolution(call: OpCall) -> Dims:
    x, w = call.dims("input"), call.dims("weight")
    groups, transposed = int(call.get("groups", 1)), bool(call.get("transposed", False))
    for kernel in w[2:]:
        pin(kernel, "a convolution kernel's extent")
    group = fresh(groups)
    if transposed:
        unify(x[1], w[0], call.where)
        if groups > 1:
            unify(w[0], group + fresh(size_of(w[0]) // groups), call.where)
        channels = group + w[1]
        out_per_group = w[1]
    else:
        unify(x[1], group + w[1], call.where)
        if groups > 1:
            unify(w[0], group + fresh(size_of(w[0]) // groups), call.where)
        channels = out_per_group = w[0]
    if call.get("bias") is not None:
        unify(call.dims("bias")[0], channels, call.where)
    spatial = x[2:]
    if not _keeps_positions(call):
        # the kernel reads neighbours, so the input's extents must stay too
        for extent in x[2:]:
            pin(extent, SPATIAL)
        spatial = fresh_all(call.out.shape[2:], SPATIAL)
    positions = x[2:] if transposed else spatial
    # each output position reads in-per-group x kernel inputs for every output channel
    if transposed:
        call.macs.append((x[0], x[1], *positions, out_per_group, *w[2:]))
    else:
        call.macs.append((x[0], channels, *positions, *w[1:]))
    return (x[0], channels, *spatial)


def _keeps_positions(call: OpCall) -> bool:
    weight = call.get("weight")
    return (
        not call.get("transposed", False)
        and all(size == 1 for size in weight.shape[2:])
        and all(step == 1 for step in call.get("stride", (1,)))
        and all(pad == 0 for pad in call.get("padding", (0,)))
    )


@handles("im2col")
def im2col(call: OpCall) -> Dims:
    """[N, C, H, W] -> [N, C x kernel, L]."""
    n, c, height, width = call.dims("self")
    pin(height, SPATIAL)
    pin(width, SPATIAL)
    kernel = 1
    for extent in call.get("kernel_size"):
        kernel *= extent
    return (n, c + fresh(kernel, "a kernel's extent"), fresh(call.out.shape[2], SPATIAL))


@handles("col2im")
def col2im(call: OpCall) -> Dims:
    """[N, C x kernel, L] -> [N, C, H, W]."""
    x = dims_of(call.get("self"))
    kernel = 1
    for extent in call.get("kernel_size"):
        kernel *= extent
    c = fresh(call.out.shape[1])
    unify(x[1], c + fresh(kernel, "a kernel's extent"), call.where)
    pin(x[2], SPATIAL)
    return (x[0], c, *fresh_all(call.out.shape[2:], SPATIAL))
