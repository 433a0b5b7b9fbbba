"""Ranges and single indices of a dimension: a slice is a piece of a split, a select pins.

A step takes the dimension as quotient x step when the range covers whole steps.
"""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, handles, wrap
from secateur.graph.types import (
    Atom,
    Dims,
    Product,
    fresh,
    pin,
    size_of,
    split_sizes,
    unify,
)

SELECTED = "single indices of it are selected"
STEPPED = "every few indices of it are taken"


def _range(call: OpCall, size: int) -> tuple[int, int, int]:
    """Start, end and step of a slice of a dimension, within it."""
    start, end, step = call.get("start"), call.get("end"), int(call.get("step", 1))
    start = 0 if start is None else wrap(int(start), size)
    end = size if end is None else wrap(int(end), size)
    start = min(max(start, 0), size)
    return start, min(max(end, start), size), step


def _take(product: Product, start: int, end: int, step: int) -> Product:
    """The part of a dimension that a slice keeps."""
    size = size_of(product)
    if start == end:
        return (Atom(0),)
    if step == 1:
        return split_sizes(product, [start, end - start, size - end])[1]
    if size % step == 0 and start < step and end > size - step + start:
        # x[start::step]: index = quotient * step + start, for every quotient
        quotient = fresh(size // step)
        unify(product, quotient + fresh(step, STEPPED), "a slice with a step")
        return quotient
    part = split_sizes(product, [start, end - start, size - end])[1]
    if size_of(part) % step == 0:
        quotient = fresh(size_of(part) // step)
        unify(part, quotient + fresh(step, STEPPED), "a slice with a step")
        return quotient
    pin(part, STEPPED)
    return fresh(-(-size_of(part) // step), STEPPED)


def _replace(x: Dims, dim: int, product: Product) -> Dims:
    return (*x[:dim], product, *x[dim + 1 :])


@handles("slice", "slice_copy")
def slice_range(call: OpCall) -> Dims:
    x = call.dims("self")
    dim = wrap(call.get("dim", 0), len(x))
    size = size_of(x[dim])
    start, end, step = _range(call, size)
    if (start, end, step) == (0, size, 1):
        return x
    return _replace(x, dim, _take(x[dim], start, end, step))


@handles("narrow", "narrow_copy")
def narrow(call: OpCall) -> Dims:
    x = call.dims("self")
    dim = wrap(call.get("dim"), len(x))
    start, length = call.get("start"), int(call.get("length"))
    if isinstance(start, Tensor):
        pin(x[dim], "a range of it is selected by a tensor")
        return _replace(x, dim, fresh(length, "a range selected by a tensor"))
    start = wrap(int(start), size_of(x[dim]))
    return _replace(x, dim, _take(x[dim], start, start + length, 1))


@handles("slice_scatter")
def slice_scatter(call: OpCall) -> Dims:
    x, source = call.dims("self"), call.dims("src")
    dim = wrap(call.get("dim", 0), len(x))
    start, end, step = _range(call, size_of(x[dim]))
    replaced = _replace(x, dim, _take(x[dim], start, end, step))
    for product, other in zip(replaced, source, strict=True):
        unify(product, other, call.where)
    return x


@handles("select", "select_copy")
def select(call: OpCall) -> Dims:
    x = call.dims("self")
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], SELECTED)
    return x[:dim] + x[dim + 1 :]


@handles("select_scatter")
def select_scatter(call: OpCall) -> Dims:
    x, source = call.dims("self"), call.dims("src")
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], SELECTED)
    for product, other in zip(x[:dim] + x[dim + 1 :], source, strict=True):
        unify(product, other, call.where)
    return x
