"""Views of one tensor's elements: reshapes, permutations, added and dropped dimensions.

A reshape states that the row-major product of the input's dimensions equals the output's.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from torch import Tensor

from secateur.graph.call import TYPE_ATTRIBUTE, NoRule, OpCall, dims_of, handles, wrap
from secateur.graph.types import Dims, Product, fresh, fresh_all, pin, size_of, unify


def _dims_before(call: OpCall) -> Dims:
    """Types of `self` before the operator ran: one in place has changed its rank by now."""
    tensor = call.get("self")
    dims: Dims | None = getattr(tensor, TYPE_ATTRIBUTE, None)
    return dims_of(tensor) if dims is None else dims


@handles(
    "view",
    "_unsafe_view",
    "reshape",
    "_reshape_alias",
    "flatten",
    "unflatten",
    "ravel",
    "view_copy",
    "_mkldnn_reshape",
)
def view(call: OpCall) -> Dims:
    x, old, new = call.dims("self"), tuple(call.get("self").shape), tuple(call.out.shape)
    if call.get("self").element_size() != call.out.element_size():
        return _view_as_type(x, new)
    if old == new:
        return x
    if 0 in new:
        return fresh_all(new, "an empty tensor")
    first = _common(old, new)
    last = _common(old[first:][::-1], new[first:][::-1])
    changed = slice(first, len(old) - last)
    middle = fresh_all(new[first : len(new) - last])
    unify(tuple(chain(*x[changed])), tuple(chain(*middle)), call.where)
    return (*x[:first], *middle, *x[len(old) - last :])


@handles("view_as", "reshape_as")
def view_as(call: OpCall) -> Dims:
    result = view(call)
    for product, other in zip(result, call.dims("other"), strict=True):
        unify(product, other, call.where)
    return result


def _common(old: tuple[int, ...], new: tuple[int, ...]) -> int:
    """Length of the common prefix. Equal leading sizes of a row-major view are equal dimensions."""
    for k, (a, b) in enumerate(zip(old, new, strict=False)):
        if a != b:
            return k
    return min(len(old), len(new))


def _view_as_type(x: Dims, shape: tuple[int, ...]) -> Dims:
    """Reinterpreted as a type of another width, which regroups the innermost dimension."""
    pin(x[-1], "its elements are reinterpreted as another type")
    return (*x[:-1], fresh(shape[-1], "its elements are reinterpreted as another type"))


@handles("permute", "permute_copy")
def permute(call: OpCall) -> Dims:
    x = call.dims("self")
    return tuple(x[d] for d in call.get("dims"))


@handles("transpose", "transpose_copy", "swapaxes", "swapdims", "_mkldnn_transpose")
def transpose(call: OpCall) -> Dims:
    x = list(_dims_before(call))
    first, second = call.get("dim0", call.get("axis0")), call.get("dim1", call.get("axis1"))
    x[first], x[second] = x[second], x[first]
    return tuple(x)


@handles("t", "t_copy", "numpy_T", "matrix_H")
def reverse(call: OpCall) -> Dims:
    return _dims_before(call)[::-1]


@handles("mT", "mH", "adjoint")
def transpose_matrix(call: OpCall) -> Dims:
    x = _dims_before(call)
    return (*x[:-2], x[-1], x[-2])


@handles("movedim", "moveaxis")
def movedim(call: OpCall) -> Dims:
    x = call.dims("self")
    n = len(x)
    sources = [wrap(d, n) for d in _as_list(call.get("source"))]
    targets = [wrap(d, n) for d in _as_list(call.get("destination"))]
    rest = iter(product for k, product in enumerate(x) if k not in sources)
    placed = dict(zip(targets, sources, strict=True))
    return tuple(x[placed[k]] if k in placed else next(rest) for k in range(n))


def _as_list(value: Any) -> list[int]:
    return [value] if isinstance(value, int) else list(value)


@handles("unsqueeze", "unsqueeze_copy")
def unsqueeze(call: OpCall) -> Dims:
    x = _dims_before(call)
    dim = wrap(call.get("dim"), len(x) + 1)
    return (*x[:dim], (), *x[dim:])


@handles("squeeze", "squeeze_copy")
def squeeze(call: OpCall) -> Dims:
    x = _dims_before(call)
    dim = call.get("dim")
    asked = range(len(x)) if dim is None else [wrap(d, len(x)) for d in _as_list(dim)]
    return tuple(p for k, p in enumerate(x) if k not in asked or size_of(p) != 1)


@handles("atleast_1d", "atleast_2d", "atleast_3d")
def atleast(call: OpCall) -> Dims:
    if not isinstance(call.out, Tensor):
        raise NoRule("a list of tensors")
    x = call.dims("self")
    if call.out.dim() == len(x):
        return x
    if len(x) == 2:
        return (*x, ())
    before = () if call.out.dim() == 1 else ((),)
    return (*before, *x, *[()] * (call.out.dim() - len(before) - len(x)))


@handles("as_strided", "as_strided_copy")
def as_strided(call: OpCall) -> Dims:
    """Only what permutes, expands or drops size-1 dimensions; other strides are not read."""
    x, source = _dims_before(call), call.get("self")
    if source is call.out:
        if tuple(size_of(product) for product in x) == tuple(source.shape):
            return x
        raise NoRule("strides rewritten in place")
    if call.get("storage_offset") not in (None, source.storage_offset()):
        raise NoRule("strides from another offset")
    unused = {k: (n, source.stride(k)) for k, n in enumerate(source.shape) if n != 1}
    out: list[Product] = []
    for size, stride in zip(call.get("size"), call.get("stride"), strict=True):
        match = next((k for k, pair in unused.items() if pair == (size, stride)), None)
        if size == 1 or (match is None and stride == 0):
            out.append(fresh(size))
        elif match is None:
            raise NoRule("strides that are no permutation of the input's")
        else:
            del unused[match]
            out.append(x[match])
    if unused:
        raise NoRule("strides that leave out a dimension")
    return tuple(out)


@handles("diagonal", "diagonal_copy", "linalg_diagonal")
def diagonal(call: OpCall) -> Dims:
    x = dims_of(call.get("self", call.get("A")))
    first, second = (wrap(call.get(name), len(x)) for name in ("dim1", "dim2"))
    rest = tuple(p for k, p in enumerate(x) if k not in (first, second))
    if call.get("offset", 0) == 0 and size_of(x[first]) == size_of(x[second]):
        unify(x[first], x[second], call.where)
        return (*rest, x[first])
    pin(x[first], "a diagonal of it is read")
    pin(x[second], "a diagonal of it is read")
    return (*rest, fresh(call.out.shape[-1], "a diagonal"))


@handles("diag_embed")
def diag_embed(call: OpCall) -> Dims:
    x, n = call.dims("self"), call.out.dim()
    places = {wrap(call.get(name), n) for name in ("dim1", "dim2")}
    on_diagonal = x[-1]
    if call.get("offset", 0) != 0:
        pin(x[-1], "it is written to a shifted diagonal")
        on_diagonal = fresh(call.out.shape[min(places)], "a shifted diagonal")
    rest = iter(x[:-1])
    return tuple(on_diagonal if k in places else next(rest) for k in range(n))


@handles("trace")
def trace(call: OpCall) -> Dims:
    rows, columns = call.dims("self")
    if size_of(rows) == size_of(columns):
        unify(rows, columns, call.where)
    else:
        pin(rows, "a diagonal of it is read")
        pin(columns, "a diagonal of it is read")
    return ()


@handles("unfold", "unfold_copy")
def unfold(call: OpCall) -> Dims:
    """Windows along a dimension: ``[..., n, ...] -> [..., windows, ..., size]``."""
    x = list(call.dims("self"))
    dim = wrap(call.get("dimension"), len(x))
    pin(x[dim], "windows are taken along it")
    x[dim] = fresh(call.out.shape[dim], "windows along a dimension")
    return (*x, fresh(call.out.shape[-1], "a window's extent"))
