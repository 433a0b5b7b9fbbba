"""Operators for which the order of the indices matters: scans, flips, sorts, triangles.

A running sum is exact: a unit that is zero adds nothing to those after it. All others pin.
"""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, broadcast, dims_of, handles, wrap
from secateur.graph.numbering import numbers_of, set_counts, set_numbers
from secateur.graph.rules.zeros import flag_surviving
from secateur.graph.types import Dims, flag, fresh, fresh_all, pin, size_of, unify


def _one_dim(call: OpCall, n: int, default: int) -> int:
    dim = call.get("dim", default)
    return wrap(default if dim is None else int(dim), n)


@handles("cumsum")
def cumsum(call: OpCall) -> Dims:
    x = call.dims("self")
    if x:
        flag_surviving(x[_one_dim(call, len(x), -1)], call.get("self"))
    return x


@handles("cumprod", "logcumsumexp", "_logcumsumexp", "cummax", "cummin")
def scan(call: OpCall) -> Dims | list[Dims | None]:
    x = call.dims("self")
    if x:
        pin(x[_one_dim(call, len(x), -1)], f"{call.name} along it")
    return [x] * len(call.out) if call.returns_many else x


@handles("diff")
def diff(call: OpCall) -> Dims:
    x = call.dims("self")
    dim = _one_dim(call, len(x), -1)
    pin(x[dim], "differences along it")
    return (*x[:dim], fresh(call.out.shape[dim], "differences"), *x[dim + 1 :])


@handles("flip", "fliplr", "flipud", "roll")
def move_positions(call: OpCall) -> Dims:
    """Positions are permuted, so both ends of the permutation must stay."""
    x = call.dims("self")
    moved = call.get("dims")
    n = len(x)
    if call.name in ("fliplr", "flipud"):
        moved = [1 if call.name == "fliplr" else 0]
    for dim in [wrap(int(d), n) for d in moved] if moved else range(n):
        pin(x[dim], f"{call.name} along it")
    return x


@handles("tril", "triu")
def triangle(call: OpCall) -> Dims:
    x = call.dims("self")
    for product in x[-2:]:
        pin(product, "a triangle compares positions along it")
    return x


@handles("fill_diagonal_")
def fill_diagonal(call: OpCall) -> Dims:
    x = call.dims("self")
    for product in x:
        pin(product, "its diagonal is written")
    return x


@handles("topk")
def topk(call: OpCall) -> Dims | list[Dims | None]:
    """The largest few: of tensors without values their indices are followed (`numbering`)."""
    x = call.dims("self")
    if not x or not call.first_out.is_meta:
        return sort(call)
    dim = _one_dim(call, len(x), -1)
    flag(x[dim], "renormalised", "the largest few of it are chosen")
    set_numbers(call.out[1], x[dim])
    chosen = fresh(call.first_out.shape[dim], "the largest few")
    result = (*x[:dim], chosen, *x[dim + 1 :])
    return [result, result]


@handles("sort", "argsort", "msort")
def sort(call: OpCall) -> Dims | list[Dims | None]:
    x = call.dims("self")
    if not x:
        return [x] * len(call.out) if call.returns_many else x
    dim = 0 if call.name == "msort" else _one_dim(call, len(x), -1)
    pin(x[dim], "sorted along it")
    sorted_size = call.first_out.shape[dim]
    product = x[dim] if sorted_size == size_of(x[dim]) else fresh(sorted_size, "the largest few")
    result = (*x[:dim], product, *x[dim + 1 :])
    return [result] * len(call.out) if call.returns_many else result


@handles("searchsorted")
def searchsorted(call: OpCall) -> Dims:
    boundaries, values = call.dims("sorted_sequence"), call.get("self")
    pin(boundaries[-1], "searched by position")
    if not isinstance(values, Tensor):
        return ()
    x = dims_of(values)
    for product, other in zip(boundaries[:-1], x[:-1], strict=False):
        unify(product, other, call.where)
    return x


@handles("bucketize")
def bucketize(call: OpCall) -> Dims:
    pin(call.dims("boundaries")[0], "searched by position")
    values = call.get("self")
    return dims_of(values) if isinstance(values, Tensor) else ()


@handles("histc")
def histogram(call: OpCall) -> Dims | list[Dims | None]:
    """How often each index of a dimension was chosen, where that is what the values are."""
    product, bins = numbers_of(call.get("self")), call.get("bins", 100)
    if product is None or (size_of(product), call.get("min", 0), call.get("max", 0)) != (
        bins, 0, bins - 1,
    ):  # fmt: skip
        return count_values(call)
    set_counts(call.first_out, product)
    return (product,)


@handles("bincount", "_unique", "_unique2", "unique_dim", "unique_consecutive")
def count_values(call: OpCall) -> Dims | list[Dims | None]:
    """Results whose size depends on the data."""
    for product in call.dims("self"):
        pin(product, "its values are counted")
    if call.returns_many:
        return [None] * len(call.out)
    return fresh_all(call.out.shape, "one for each value found")


@handles("multinomial")
def multinomial(call: OpCall) -> Dims:
    """Positions drawn from a distribution over the last dimension."""
    x = call.dims("self")
    pin(x[-1], "positions along it are drawn")
    return (*x[:-1], fresh(call.out.shape[-1], "draws"))


@handles("cross", "linalg_cross")
def cross(call: OpCall) -> Dims:
    """The cross product of vectors of three."""
    x = broadcast([call.dims("self"), call.dims("other")], call.out.shape, call.where)
    dim = call.get("dim")
    for k, product in enumerate(x):
        if (dim is None and size_of(product) == 3) or (dim is not None and k == wrap(dim, len(x))):
            pin(product, "a cross product over it")
    return x
