"""Matrix products: the contracted dimensions are one, the others pass through.

Each rule adds one multiply-accumulate term: the rows, the contracted dimension, the columns and
whatever batch they share.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from secateur.graph.call import NoRule, OpCall, broadcast, dims_of, handles
from secateur.graph.numbering import counts_of
from secateur.graph.rules.broadcasting import broadcast_together, sizes_of
from secateur.graph.rules.zeros import flag_surviving
from secateur.graph.types import Dims, Product, pin, unify

ROUTED = "tokens are routed to its units by position"
DELIMITED = "ranges of it belong to different experts"


def _multiply(call: OpCall, a: Dims, b: Dims) -> Dims:
    """``[..., i, k] @ [..., k, j]`` with broadcast batch dimensions."""
    unify(a[-1], b[-2], call.where)
    flag_surviving(a[-1], *_factors(call))
    batch = broadcast_together([a[:-2], b[:-2]], call.where)
    call.macs.append((*batch, a[-2], a[-1], b[-1]))
    return (*batch, a[-2], b[-1])


def _factors(call: OpCall) -> tuple[Any, Any]:
    """The two tensors that are multiplied, under their names in the various operators."""
    first = call.get("mat1", call.get("batch1", call.get("mat", call.get("self"))))
    names = ("mat2", "batch2", "vec", "other", "tensor")
    return first, next(call.get(name) for name in names if call.get(name) is not None)


def _add(call: OpCall, addend: Tensor | None, result: Dims) -> Dims:
    """The result, after an addend of broadcast shape was added to it."""
    if isinstance(addend, Tensor):
        broadcast([result, dims_of(addend)], sizes_of(result), call.where)
    return result


@handles("mm", "bmm", "_int_mm")
def multiply(call: OpCall) -> Dims:
    return _multiply(call, call.dims("self"), call.dims("mat2"))


@handles("matmul")
def matmul(call: OpCall) -> Dims:
    """As `mm` with broadcast batches; a vector counts as one row or one column."""
    a, b = call.dims("self"), call.dims("other")
    result = _multiply(
        call,
        a if len(a) > 1 else ((), *a),
        b if len(b) > 1 else (*b, ()),
    )
    rows = result[-2:-1] if len(a) > 1 else ()
    columns = result[-1:] if len(b) > 1 else ()
    return (*result[:-2], *rows, *columns)


@handles("addmm", "_addmm_activation")
def addmm(call: OpCall) -> Dims:
    product = _multiply(call, call.dims("mat1"), call.dims("mat2"))
    return _add(call, call.get("self"), product)


@handles("baddbmm")
def baddbmm(call: OpCall) -> Dims:
    product = _multiply(call, call.dims("batch1"), call.dims("batch2"))
    return _add(call, call.get("self"), product)


@handles("addbmm")
def addbmm(call: OpCall) -> Dims:
    """The batch is summed away, which zeros pass unchanged."""
    product = _multiply(call, call.dims("batch1"), call.dims("batch2"))
    return _add(call, call.get("self"), product[1:])


@handles("mv")
def mv(call: OpCall) -> Dims:
    return _matrix_vector(call, call.dims("self"), call.dims("vec"))


@handles("addmv")
def addmv(call: OpCall) -> Dims:
    product = _matrix_vector(call, call.dims("mat"), call.dims("vec"))
    return _add(call, call.get("self"), product)


def _matrix_vector(call: OpCall, matrix: Dims, vector: Dims) -> Dims:
    unify(matrix[1], vector[0], call.where)
    flag_surviving(matrix[1], *_factors(call))
    call.macs.append((matrix[0], matrix[1]))
    return (matrix[0],)


@handles("dot", "vdot")
def dot(call: OpCall) -> Dims:
    first, other = call.dims("self"), call.get("other", call.get("tensor"))
    unify(first[0], dims_of(other)[0], call.where)
    flag_surviving(first[0], *_factors(call))
    call.macs.append((first[0],))
    return ()


@handles("outer", "ger")
def outer(call: OpCall) -> Dims:
    result = (call.dims("self")[0], call.dims("vec2")[0])
    call.macs.append(result)
    return result


@handles("addr")
def addr(call: OpCall) -> Dims:
    result = (call.dims("vec1")[0], call.dims("vec2")[0])
    call.macs.append(result)
    return _add(call, call.get("self"), result)


@handles("inner")
def inner(call: OpCall) -> Dims:
    a, b = call.dims("self"), call.dims("other")
    unify(a[-1], b[-1], call.where)
    call.macs.append((*a, *b[:-1]))
    return (*a[:-1], *b[:-1])


@handles("linear", "mkldnn_linear")
def linear(call: OpCall) -> Dims:
    x, w = dims_of(call.get("input", call.get("self"))), call.dims("weight")
    unify(x[-1], w[-1], call.where)
    # a weight of one dimension is a single row, and gives no output dimension
    out: Dims = w[:-1]
    bias: Tensor | None = call.get("bias")
    if bias is not None:
        _add(call, bias, out)
    call.macs.append((*x, *out))
    return (*x[:-1], *out)


@handles("bilinear")
def bilinear(call: OpCall) -> Dims:
    """``x1[..., i] * weight[o, i, j] * x2[..., j]`` summed over i and j."""
    x1, x2, w = call.dims("input1"), call.dims("input2"), call.dims("weight")
    unify(x1[-1], w[1], call.where)
    unify(x2[-1], w[2], call.where)
    batch = broadcast_together([x1[:-1], x2[:-1]], call.where)
    call.macs.append((*batch, *w))
    return _add(call, call.get("bias"), (*batch, w[0]))


@handles("_trilinear")
def trilinear(call: OpCall) -> Dims:
    """Three tensors, given size-1 dimensions at `expand`, multiplied, summed over `sumdim`."""
    operands: list[Dims] = []
    for k in (1, 2, 3):
        dims: list[Product] = list(call.dims(f"i{k}"))
        for position in sorted(call.get(f"expand{k}")):
            dims.insert(position, ())
        operands.append(tuple(dims))
    product = broadcast_together(operands, call.where)
    call.macs.append(product)
    return tuple(p for k, p in enumerate(product) if k not in set(call.get("sumdim")))


@handles("_scaled_mm")
def scaled_mm(call: OpCall) -> Dims:
    """A product of 8-bit matrices with one scale for all, or one for each row and column."""
    result = _multiply(call, call.dims("self"), call.dims("mat2"))
    shape = sizes_of(result)
    for name in ("scale_a", "scale_b"):
        scale = call.get(name)
        sizes = scale.shape
        if scale.numel() == 1:
            continue
        if len(sizes) != 2 or any(s not in (1, n) for s, n in zip(sizes, shape, strict=True)):
            raise NoRule(f"scales of shape {tuple(sizes)}, blocks of rows or columns")
        _add(call, scale, result)
    return _add(call, call.get("bias"), result)


@handles("_grouped_mm")
def grouped_mm(call: OpCall) -> Dims:
    """One matrix product for each expert.

    A 3-D operand holds a matrix for each expert; a 2-D one holds the rows (or columns) of all of
    them, which `offs` delimits, so what is delimited is pinned, and the experts as well where it is
    not known that `offs` counts how often each was chosen.
    """
    a, b = call.dims("self"), call.dims("mat2")
    if len(a) == 3 and len(b) == 3:
        return _add(call, call.get("bias"), _multiply(call, a, b))
    unify(a[-1], b[-2], call.where)
    experts = dims_of(call.get("offs"))[0]
    if counts_of(call.get("offs")) is None:
        pin(experts, ROUTED)
    for operand in (a, b):
        if len(operand) == 3:
            unify(operand[0], experts, call.where)
    if len(a) == len(b):
        pin(a[-1], DELIMITED)
    else:
        pin(a[-2] if len(a) == 2 else b[-1], DELIMITED)
    bias: Tensor | None = call.get("bias")
    if bias is not None:
        unify(dims_of(bias)[-1], b[-1], call.where)
    call.macs.append((a[-2], a[-1], b[-1]))
    return (experts, a[-2], b[-1]) if len(a) == len(b) else (a[-2], b[-1])


@handles("_cdist_forward", "_euclidean_dist", "cdist")
def cdist(call: OpCall) -> Dims:
    """Distances between rows; a pair of zeros adds none."""
    a, b = call.dims("x1"), call.dims("x2")
    unify(a[-1], b[-1], call.where)
    return (*broadcast_together([a[:-2], b[:-2]], call.where), a[-2], b[-2])
