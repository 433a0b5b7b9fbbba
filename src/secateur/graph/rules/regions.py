"""torchvision's compiled operators: regions of feature maps, and convolutions that move.

Regions ``[k, 5]`` are an image's number and two corners, so the images are read by position;
features ``[n, c, h, w]`` give ``[k, c, height, width]``. What suppresses boxes returns positions.
"""

from __future__ import annotations

from secateur.graph.call import OpCall, handles
from secateur.graph.rules.convolution import SPATIAL
from secateur.graph.types import Dims, fresh, fresh_all, pin, size_of, unify

READ = "regions of it are read"
BIN = "positions in a region"
OFFSETS = "offsets of a kernel's positions"


@handles("roi_align", "roi_pool")
def pool_regions(call: OpCall) -> Dims | list[Dims | None]:
    """Channels pass; the second output of `roi_pool` tells where each maximum was."""
    x, regions = _read(call)
    result = (regions[0], x[1], *fresh_all(call.first_out.shape[2:], BIN))
    return [result] * len(call.out) if call.returns_many else result


@handles("ps_roi_align", "ps_roi_pool")
def pool_by_position(call: OpCall) -> list[Dims | None]:
    """Input channels are channels x positions: each position of a region reads its own."""
    x, regions = _read(call)
    height, width = call.first_out.shape[2:]
    channels = fresh(call.first_out.shape[1])
    unify(x[1], channels + fresh(height * width, BIN), call.where)
    result = (regions[0], channels, *fresh_all((height, width), BIN))
    # the second output names input channels by number
    pin(channels, "channels are numbered by position")
    return [result] * len(call.out)


def _read(call: OpCall) -> tuple[Dims, Dims]:
    x, regions = call.dims("input"), call.dims("rois")
    for product in (x[0], *x[2:]):
        pin(product, READ)
    pin(regions[1], "corners of a region")
    return x, regions


@handles("nms")
def suppress(call: OpCall) -> Dims:
    for product in (*call.dims("dets"), *call.dims("scores")):
        pin(product, "boxes are kept by position")
    return (fresh(call.out.shape[0], "as many boxes as are kept"),)


@handles("deform_conv2d")
def deformable_convolution(call: OpCall) -> Dims:
    """A convolution whose kernel's positions are moved by offsets, the same for all channels of
    an offset group, and weighted by a mask."""
    x, w = call.dims("input"), call.dims("weight")
    for product in (*w[2:], *x[2:]):
        pin(product, SPATIAL)
    group, moved = int(call.get("groups", 1)), int(call.get("offset_groups", 1))
    groups = fresh(group)
    unify(x[1], groups + w[1], call.where)
    if group > 1:
        unify(w[0], groups + fresh(size_of(w[0]) // group), call.where)
    if moved > 1:
        unify(x[1], fresh(moved, OFFSETS) + fresh(size_of(x[1]) // moved), call.where)
    for name in ("offset", "mask"):
        extra = call.dims(name)
        if name == "mask" and not call.get("use_mask", True):
            continue
        unify(extra[0], x[0], call.where)
        for product in extra[1:]:
            pin(product, OFFSETS)
    unify(call.dims("bias")[0], w[0], call.where)
    extents = fresh_all(call.out.shape[2:], SPATIAL)
    call.macs.append((x[0], w[0], *extents, *w[1:]))
    return (x[0], w[0], *extents)
