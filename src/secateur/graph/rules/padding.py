"""Padding: constants concatenate with the dimension, negative widths crop it, borders pin it."""

from __future__ import annotations

from secateur.graph.call import NoRule, OpCall, handles
from secateur.graph.types import Dims, Product, concat, fresh, pin, size_of, split_sizes

PADDING = "constant padding"


@handles("constant_pad_nd")
def constant_pad(call: OpCall) -> Dims:
    return _pad(call)


@handles("pad", "_pad_enum")
def pad_in_mode(call: OpCall) -> Dims:
    """Other modes repeat what lies at the border, so its positions matter."""
    mode = call.get("mode", 0)
    if mode in ("constant", 0):
        return _pad(call)
    if mode not in ("reflect", "replicate", "circular", 1, 2, 3):
        raise NoRule(f"padding mode {mode}")
    return _repeat_border(call)


@handles("_pad_circular")
def pad_circular(call: OpCall) -> Dims:
    return _repeat_border(call)


def _widths(call: OpCall, n: int) -> list[tuple[int, int]]:
    """Padding before and after each dimension; the argument lists the last dimension first."""
    flat = [int(width) for width in call.get("pad")]
    pairs = list(zip(flat[::2], flat[1::2], strict=True))[::-1]
    return [(0, 0)] * (n - len(pairs)) + pairs


def _pad(call: OpCall) -> Dims:
    x = call.dims("self")
    return tuple(
        _pad_dim(product, before, after)
        for product, (before, after) in zip(x, _widths(call, len(x)), strict=True)
    )


def _pad_dim(product: Product, before: int, after: int) -> Product:
    if before == 0 and after == 0:
        return product
    cropped = [max(0, -before), 0, max(0, -after)]
    cropped[1] = size_of(product) - cropped[0] - cropped[2]
    inner = split_sizes(product, cropped)[1] if cropped[0] or cropped[2] else product
    return concat(
        [
            fresh(before, PADDING) if before > 0 else None,
            inner,
            fresh(after, PADDING) if after > 0 else None,
        ]
    )


def _repeat_border(call: OpCall) -> Dims:
    x, out = list(call.dims("self")), call.out.shape
    for k, (before, after) in enumerate(_widths(call, len(x))):
        if before or after:
            pin(x[k], "padded with its own border")
            x[k] = fresh(int(out[k]), "padded with its own border")
    return tuple(x)
