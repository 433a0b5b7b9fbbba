"""Reductions: the reduced dimensions go, or stay with size 1.

A sum, a norm or `any` over a unit that is zero equals the one without it. A mean, a maximum, a
product or a softmax's denominator does not, and flags what it runs over.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.graph.call import OpCall, dims_of, handles, wrap
from secateur.graph.rules.pointwise import pointwise
from secateur.graph.rules.zeros import flag_surviving
from secateur.graph.types import Dims, flag, pin


def reduced_dims(call: OpCall, n: int) -> set[int]:
    """The dimensions that argument `dim` names; all of them when it is None, empty or absent."""
    dim: Any = call.get("dim")
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return set(range(n))
    if n == 0:
        return set()
    return {wrap(int(d), n) for d in ([dim] if isinstance(dim, int) else dim)}


def without(x: Dims, reduced: set[int], *, rank: int) -> Dims:
    """What is left after a reduction to a tensor of `rank` dimensions."""
    if rank == len(x):
        return tuple(() if k in reduced else product for k, product in enumerate(x))
    return tuple(product for k, product in enumerate(x) if k not in reduced)


def _results(call: OpCall, x: Dims, reduced: set[int]) -> Dims | list[Dims | None]:
    result = without(x, reduced, rank=call.first_out.dim())
    return [result] * len(call.out) if call.returns_many else result


@handles("sum", "nansum", "any", "count_nonzero")
def exact(call: OpCall) -> Dims | list[Dims | None]:
    """Zeros add nothing."""
    x = call.dims("self")
    reduced = reduced_dims(call, len(x))
    for k in reduced:
        flag_surviving(x[k], call.get("self"))
    return _results(call, x, reduced)


@handles(
    "all",
    "amax",
    "amin",
    "aminmax",
    "_aminmax",
    "logsumexp",
    "mean",
    "nanmean",
    "prod",
    "std",
    "std_mean",
    "var",
    "var_mean",
)
def renormalised(call: OpCall) -> Dims | list[Dims | None]:
    x = call.dims("self")
    reduced = reduced_dims(call, len(x))
    for k in reduced:
        flag(x[k], "renormalised", f"{call.name} over it")
    return _results(call, x, reduced)


@handles("norm", "linalg_vector_norm", "native_norm")
def norm(call: OpCall) -> Dims | list[Dims | None]:
    """Zeros do not change a norm, except one of negative order."""
    x = call.dims("self")
    reduced = reduced_dims(call, len(x))
    for k in reduced:
        flag_surviving(x[k], call.get("self"))
    order = call.get("ord", call.get("p", 2))
    if order is not None and float(order) < 0:
        for k in reduced:
            flag(x[k], "renormalised", "a norm of negative order over it")
    return _results(call, x, reduced)


@handles("max", "min")
def extremum(call: OpCall) -> Dims | list[Dims | None]:
    """Of a tensor, along a dimension with its positions, or of two tensors elementwise."""
    if isinstance(call.get("other"), Tensor):
        return pointwise(call)
    return positioned(call) if call.returns_many else renormalised(call)


@handles("argmax", "argmin", "median", "nanmedian", "mode", "kthvalue")
def positioned(call: OpCall) -> Dims | list[Dims | None]:
    """Reductions whose result is, or comes with, a position or a rank."""
    x = call.dims("self")
    reduced = reduced_dims(call, len(x))
    for k in reduced:
        pin(x[k], f"{call.name} over it")
    return _results(call, x, reduced)


@handles("quantile", "nanquantile")
def quantile(call: OpCall) -> Dims:
    """One result for each quantile asked for, the quantiles first."""
    x = call.dims("self")
    reduced = reduced_dims(call, len(x))
    for k in reduced:
        flag(x[k], "renormalised", f"{call.name} over it")
    asked = call.get("q")
    leading = dims_of(asked) if isinstance(asked, Tensor) else ()
    rank = call.out.dim() - len(leading)
    return (*leading, *without(x, reduced, rank=rank))
