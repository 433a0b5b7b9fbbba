"""Elements moved between channels and space, and sampling at given points."""

from __future__ import annotations

from secateur.graph.call import OpCall, handles
from secateur.graph.types import Dims, fresh, pin, size_of, unify

SPATIAL = "a spatial extent"
BLOCK = "positions of a block of pixels"


@handles("pixel_shuffle")
def pixel_shuffle(call: OpCall) -> Dims:
    """``[..., c * r * r, h, w] -> [..., c, h * r, w * r]``, input channels being c x r x r."""
    x, block = call.dims("self"), int(call.get("upscale_factor")) ** 2
    channels = fresh(size_of(x[-3]) // block)
    unify(x[-3], channels + fresh(block, BLOCK), call.where)
    return (*x[:-3], channels, *_rearranged(call, x))


@handles("pixel_unshuffle")
def pixel_unshuffle(call: OpCall) -> Dims:
    x, block = call.dims("self"), int(call.get("downscale_factor")) ** 2
    return (*x[:-3], x[-3] + fresh(block, BLOCK), *_rearranged(call, x))


def _rearranged(call: OpCall, x: Dims) -> Dims:
    """The output's height and width."""
    for product in x[-2:]:
        pin(product, SPATIAL)
    return tuple(fresh(size, SPATIAL) for size in call.out.shape[-2:])


@handles("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(call: OpCall) -> Dims:
    """Channels groups x within become within x groups."""
    x, count = call.dims("self"), int(call.get("groups"))
    groups, within = fresh(count), fresh(size_of(x[1]) // count)
    unify(x[1], groups + within, call.where)
    return (x[0], within + groups, *x[2:])


@handles("grid_sampler", "grid_sampler_2d", "grid_sampler_3d", "cudnn_grid_sampler")
def grid_sampler(call: OpCall) -> Dims:
    """Input ``[n, c, *extents]`` read at the points of grid ``[n, *points, coordinates]``."""
    x, grid = call.dims("input" if call.name != "cudnn_grid_sampler" else "self"), call.dims("grid")
    unify(x[0], grid[0], call.where)
    for product in x[2:]:
        pin(product, SPATIAL)
    pin(grid[-1], "coordinates of points")
    return (x[0], x[1], *grid[1:-1])


@handles("affine_grid_generator")
def affine_grid_generator(call: OpCall) -> Dims:
    """Points ``[n, *extents, coordinates]`` of a transform ``[n, rows, columns]``."""
    theta = call.dims("theta")
    for product in theta[1:]:
        pin(product, "coordinates of points")
    extents = (fresh(size, SPATIAL) for size in call.out.shape[1:-1])
    return (theta[0], *extents, fresh(call.out.shape[-1], "coordinates of points"))
