"""Indexing by tensors: an indexed dimension is pinned, for its positions mean something.

The result takes the index tensor's own dimensions in place of those it indexes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.graph.call import NoRule, OpCall, broadcast, dims_of, handles, wrap
from secateur.graph.numbering import numbers_of
from secateur.graph.rules.broadcasting import broadcast_together, sizes_of
from secateur.graph.types import Dims, Product, fresh, fresh_all, pin, size_of, unify

INDEXED = "indexed by position"
MASKED = "selected by a mask"
OVERWRITTEN = "what it writes replaces what was there"


def _unify_or_pin(a: Product, b: Product, where: str) -> None:
    """Equal sizes are one dimension; else the shorter holds the first positions of the other."""
    if size_of(a) == size_of(b):
        unify(a, b, where)
        return
    pin(a, INDEXED)
    pin(b, INDEXED)


def _without(x: Dims, dim: int) -> Dims:
    return x[:dim] + x[dim + 1 :]


@handles("embedding")
def embedding(call: OpCall) -> Dims:
    weight, indices = call.dims("weight"), call.dims("indices")
    pin(weight[0], INDEXED)
    return (*indices, weight[1])


@handles("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only")
def embedding_bag(call: OpCall) -> list[Dims | None]:
    """Sums (or averages) of rows of a table, one for each bag."""
    weight, offsets = call.dims("weight"), call.dims("offsets")
    pin(weight[0], INDEXED)
    pin(call.dims("indices")[0], INDEXED)
    pin(offsets[0], "it delimits bags")
    bags = fresh(call.out[0].shape[0], "bags of an embedding")
    return [(bags, weight[1]), *[None] * (len(call.out) - 1)]


@handles("index_select")
def index_select(call: OpCall) -> Dims:
    x = call.dims("self")
    if not x:
        return ()
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], INDEXED)
    index = call.dims("index")
    return (*x[:dim], index[0] if index else (), *x[dim + 1 :])


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _integer_indices(indices: Sequence[Tensor | None]) -> list[Dims | None]:
    """Types of the indices, one for each dimension; a boolean mask counts as one for each of its
    dimensions, all listing where it is true."""
    out: list[Dims | None] = []
    for index in indices:
        if index is None:
            out.append(None)
        elif _is_mask(index):
            if index.is_meta:
                raise NoRule("a mask without values")
            for product in dims_of(index):
                pin(product, MASKED)
            chosen = (fresh(int(index.count_nonzero()), MASKED),)
            out.extend([chosen] * index.dim())
        else:
            out.append(dims_of(index))
    return out


def _indexed(call: OpCall, x: Dims) -> Dims:
    """Types of ``self[indices]``. Indices side by side are replaced where they stand; with a gap
    between them their common shape comes first."""
    indices = _integer_indices(list(call.get("indices")))
    places = [k for k, index in enumerate(indices) if index is not None]
    chosen = [index for index in indices if index is not None]
    for place in places:
        pin(x[place], INDEXED)
    common = broadcast_together(chosen, call.where)
    if places != list(range(places[0], places[-1] + 1)):
        return (*common, *(p for k, p in enumerate(x) if k not in places))
    return (*x[: places[0]], *common, *x[places[-1] + 1 :])


@handles("index", "_unsafe_index")
def index(call: OpCall) -> Dims:
    x = call.dims("self")
    numbered = [
        (k, product)
        for k, index in enumerate(call.get("indices"))
        if (product := numbers_of(index)) is not None
    ]
    if call.name != "index" or len(call.get("indices")) > 1 or not numbered:
        for _, product in numbered:
            pin(product, INDEXED)
        return _indexed(call, x)
    # rows of one dimension, chosen by numbers that are its own
    ((place, product),) = numbered
    if size_of(x[place]) != size_of(product):
        pin(product, INDEXED)
        return _indexed(call, x)
    unify(x[place], product, call.where)
    return (*dims_of(call.get("indices")[0]), *x[1:])


@handles("index_put", "_index_put_impl", "_unsafe_index_put")
def index_put(call: OpCall) -> Dims:
    x, values = call.dims("self"), call.dims("values")
    indices: list[Tensor | None] = list(call.get("indices"))
    mask = indices[0]
    if mask is not None and len(indices) == 1 and _is_mask(mask):
        rest = x[mask.dim() :]
        along_places = values[: -len(rest)] if rest else values
        if not any(along_places):
            # one value for all places: x[mask] = value is where(mask, value, x)
            for product, other in zip(x, dims_of(mask), strict=False):
                unify(product, other, call.where)
            broadcast([rest, values[-len(rest) :] if rest else ()], sizes_of(rest), call.where)
            return x
    chosen = _indexed(call, x)
    broadcast([chosen, values], sizes_of(chosen), call.where)
    if not call.get("accumulate", False):
        for index in indices:
            if index is not None:
                _pin_all(dims_of(index), reason=OVERWRITTEN)
    return x


@handles("gather")
def gather(call: OpCall) -> Dims:
    x, indices = call.dims("self"), call.dims("index")
    if not x:
        return indices
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], INDEXED)
    for product, other in zip(_without(x, dim), _without(indices, dim), strict=True):
        _unify_or_pin(product, other, call.where)
    return indices


@handles("take_along_dim")
def take_along_dim(call: OpCall) -> Dims:
    """`gather` with broadcasting; without `dim`, positions in the flat tensor."""
    x, indices, dim = call.dims("self"), call.dims("indices"), call.get("dim")
    if dim is None:
        for product in (*x, *indices):
            pin(product, INDEXED)
        return fresh_all(call.out.shape, INDEXED)
    dim = wrap(dim, len(x))
    pin(x[dim], INDEXED)
    rest = broadcast_together([_without(x, dim), _without(indices, dim)], call.where)
    return (*rest[:dim], indices[dim], *rest[dim:])


ADDS = ("add", "sum")
"""Reductions by which writing zero equals not writing."""


@handles("scatter", "scatter_add", "scatter_reduce")
def scatter(call: OpCall) -> Dims:
    """``self[..., index[i], ...] = src[i]`` along `dim`, or combined with what is there."""
    x, indices = call.dims("self"), call.dims("index")
    source = call.get("src", call.get("value"))
    if isinstance(source, Tensor) and source.dim() == len(indices):
        for product, other in zip(indices, dims_of(source), strict=True):
            _unify_or_pin(product, other, call.where)
    if not x:
        return x
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], INDEXED)
    if not call.name.startswith("scatter_add") and call.get("reduce") not in ADDS:
        pin(indices[dim], OVERWRITTEN)
    for product, other in zip(_without(x, dim), _without(indices, dim), strict=True):
        _unify_or_pin(product, other, call.where)
    return x


@handles("index_add", "index_copy", "index_reduce")
def index_add(call: OpCall) -> Dims:
    """``self[index[i]] = source[i]`` along `dim`, or combined with what is there."""
    x, source, indices = call.dims("self"), call.dims("source"), call.dims("index")
    if not x:
        return x
    dim = wrap(call.get("dim"), len(x))
    pin(x[dim], INDEXED)
    for k, (product, other) in enumerate(zip(x, source, strict=True)):
        if k != dim:
            unify(product, other, call.where)
    if indices:
        unify(source[dim], indices[0], call.where)
    if not call.name.startswith("index_add"):
        pin(source[dim], OVERWRITTEN)
    return x


@handles("index_fill")
def index_fill(call: OpCall) -> Dims:
    x = call.dims("self")
    if x:
        pin(x[wrap(call.get("dim"), len(x))], INDEXED)
    _pin_all(call.dims("index"), reason=OVERWRITTEN)
    return x


def _pin_all(*tensors: Dims, reason: str) -> None:
    for dims in tensors:
        for product in dims:
            pin(product, reason)


@handles("take")
def take(call: OpCall) -> Dims:
    """Positions in the flat tensor."""
    _pin_all(call.dims("self"), reason=INDEXED)
    return call.dims("index")


@handles("masked_select")
def masked_select(call: OpCall) -> Dims:
    _pin_all(call.dims("self"), call.dims("mask"), reason=MASKED)
    return (fresh(call.out.shape[0], MASKED),)


@handles("masked_scatter")
def masked_scatter(call: OpCall) -> Dims:
    """Consecutive elements of `source` go where the mask is true."""
    x = call.dims("self")
    _pin_all(x, call.dims("mask"), call.dims("source"), reason=MASKED)
    return x


@handles("nonzero", "argwhere", "nonzero_static")
def nonzero(call: OpCall) -> Dims:
    _pin_all(call.dims("self"), reason="positions of its nonzeros are listed")
    return fresh_all(call.out.shape, "positions of nonzeros")
