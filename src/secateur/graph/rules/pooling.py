"""Pooling, resampling and spatial padding: channels pass, spatial extents are pinned.

An extent that keeps its size keeps its type.
"""

from __future__ import annotations

from secateur.graph.call import OpCall, handles
from secateur.graph.types import Dims, Product, fresh, pin, size_of

SPATIAL = "a spatial extent"


def _resampled(x: Dims, shape: tuple[int, ...], spatial: int) -> Dims:
    """The first dimensions of `x`, then an extent for each of the last `spatial` sizes."""
    extents: list[Product] = []
    for product, size in zip(x[-spatial:], shape[-spatial:], strict=True):
        pin(product, SPATIAL)
        extents.append(product if size_of(product) == size else fresh(size, SPATIAL))
    return (*x[:-spatial], *extents)


def _over_last(call: OpCall, spatial: int) -> Dims | list[Dims | None]:
    x = call.dims("self")
    if not call.returns_many:
        return _resampled(x, tuple(call.out.shape), spatial)
    return [_resampled(x, tuple(out.shape), spatial) for out in call.out]


@handles(
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "avg_pool1d",
    "max_pool1d",
    "max_pool1d_with_indices",
    "reflection_pad1d",
    "replication_pad1d",
    "upsample_linear1d",
    "upsample_nearest1d",
    "_upsample_nearest_exact1d",
)
def over_one(call: OpCall) -> Dims | list[Dims | None]:
    return _over_last(call, 1)


@handles(
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool2d",
    "avg_pool2d",
    "fractional_max_pool2d",
    "max_pool2d",
    "max_pool2d_with_indices",
    "max_unpool2d",
    "mkldnn_adaptive_avg_pool2d",
    "mkldnn_max_pool2d",
    "reflection_pad2d",
    "replication_pad2d",
    "upsample_bicubic2d",
    "upsample_bilinear2d",
    "upsample_nearest2d",
    "_upsample_bicubic2d_aa",
    "_upsample_bilinear2d_aa",
    "_upsample_lanczos2d_aa",
    "_upsample_nearest_exact2d",
)
def over_two(call: OpCall) -> Dims | list[Dims | None]:
    return _over_last(call, 2)


@handles(
    "_adaptive_avg_pool3d",
    "adaptive_avg_pool3d",
    "adaptive_max_pool3d",
    "avg_pool3d",
    "fractional_max_pool3d",
    "max_pool3d",
    "max_pool3d_with_indices",
    "max_unpool3d",
    "mkldnn_max_pool3d",
    "reflection_pad3d",
    "replication_pad3d",
    "upsample_nearest3d",
    "upsample_trilinear3d",
    "_upsample_nearest_exact3d",
)
def over_three(call: OpCall) -> Dims | list[Dims | None]:
    return _over_last(call, 3)
