"""What hot operators return on the meta device, without torch's own Python kernels.

torch computes most meta outputs with Python decompositions, up to a millisecond an operator. Here
the commonest operators on ordinary contiguous tensors get their output's shape directly, and what
any other operator without side effects returned is remembered for tensors of the same layout.
Where a shortcut does not apply it returns None and torch decides, errors included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

Shape = tuple[int, ...]
Quick = Callable[..., Any]
_META = torch.device("meta")
_HALVES = (torch.float16, torch.bfloat16)


class MetaKernels:
    """Runs operators whose tensors are all on meta; remembers output layouts for one trace."""

    def __init__(self) -> None:
        self._known: dict[Any, Any] = {}

    def run(self, func: torch._ops.OpOverload, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """What `func` returns."""
        quick = QUICK.get(func)
        if quick is not None:
            out = quick(*args, **kwargs)
            if out is not None:
                return out
        if not _functional(func):
            return func(*args, **kwargs)
        key = (func, _key(args), _key(tuple(kwargs.items())))
        try:
            known = self._known.get(key)
        except TypeError:  # an argument that cannot be hashed, a generator for one
            return func(*args, **kwargs)
        if known is not None:
            return _made(known)
        out = func(*args, **kwargs)
        layout = _layout(out)
        # `_unsafe_view` and its kin do not say that they share memory
        if layout is not None and not _memory(out) & _memory((args, tuple(kwargs.values()))):
            self._known[key] = layout
        return out


@cache
def _functional(func: torch._ops.OpOverload) -> bool:
    """Whether an operator makes new tensors only: nothing written, nothing aliased."""
    schema = func._schema
    values = (*schema.arguments, *schema.returns)
    return bool(schema.returns) and all(value.alias_info is None for value in values)


def _key(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.is_conj(), value.is_neg()
    if isinstance(value, (list, tuple)):
        return tuple(_key(item) for item in value)
    return type(value), value


def _layout(out: Any) -> Any:
    """Layouts of an operator's outputs, None where they are more than plain new tensors."""
    if type(out) is Tensor:
        plain = out.is_meta and not out.is_conj() and not out.is_neg()
        return (out.shape, out.stride(), out.dtype) if plain else None
    if type(out) is tuple:
        parts = [_layout(item) for item in out]
        return parts if parts and all(type(part) is tuple for part in parts) else None
    return None


def _made(layout: Any) -> Any:
    if type(layout) is list:
        return tuple(_made(part) for part in layout)
    shape, stride, dtype = layout
    return torch.empty_strided(shape, stride, dtype=dtype, device=_META)


def _memory(value: Any) -> set[int]:
    """Storages of the tensors in a nest."""
    if isinstance(value, Tensor):
        return {value.untyped_storage()._cdata}
    if isinstance(value, (list, tuple)):
        return set().union(*map(_memory, value))
    return set()


def _new(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device=_META)


def _plain(tensor: Tensor) -> bool:
    """Contiguous in the one way that leaves no choice, not even for dimensions of size one."""
    if not tensor.is_contiguous() or tensor.dtype.is_complex:
        return False
    expected = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if stride != expected:
            return False
        expected *= size
    return expected > 0  # empty tensors have strides of their own


def _pointwise(*operands: Any, **rest: Any) -> Tensor | None:
    """Contiguous operands of one floating type, broadcast; numbers beside them."""
    shape: Shape | None = None
    dtype = operands[0].dtype if isinstance(operands[0], Tensor) else None
    if dtype is None or not dtype.is_floating_point or "out" in rest:
        return None
    for operand in operands:
        if isinstance(operand, Tensor):
            if operand.dtype is not dtype or not _plain(operand):
                return None
            shape = operand.shape if shape is None else _broadcast(shape, operand.shape)
            if shape is None:
                return None
        elif type(operand) is complex:
            return None
    return _new(shape, dtype) if shape is not None else None


def _in_place(own: Tensor, *operands: Any, **rest: Any) -> Tensor | None:
    """The tensor itself, where what is written into it fits and needs no conversion."""
    if not own.dtype.is_floating_point:
        return None
    for operand in operands:
        if isinstance(operand, Tensor):
            if operand.dtype is not own.dtype or _broadcast(own.shape, operand.shape) != own.shape:
                return None
        elif type(operand) is complex:
            return None
    return own


def _broadcast(first: Shape, second: Shape) -> Shape | None:
    if first == second:
        return first
    long, short = (first, second) if len(first) >= len(second) else (second, first)
    out = list(long)
    for k, size in enumerate(short, start=len(long) - len(short)):
        if out[k] == 1:
            out[k] = size
        elif size not in (1, out[k]):
            return None
    return tuple(out)


def _convolution(
    x: Tensor,
    w: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Tensor | None:
    n = w.dim() - 2
    if transposed or x.dim() != n + 2 or x.dtype is not w.dtype or not n:
        return None
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups or not x.shape[1]:
        return None
    stride, padding, dilation = (_each(v, n) for v in (stride, padding, dilation))
    extents = []
    for size, kernel, s, p, d in zip(
        x.shape[2:], w.shape[2:], stride, padding, dilation, strict=True
    ):
        if size + 2 * p < d * (kernel - 1) + 1 or s < 1:
            return None
        extents.append((size + 2 * p - d * (kernel - 1) - 1) // s + 1)
    return _new((x.shape[0], w.shape[0], *extents), x.dtype)


def _each(values: Sequence[int], n: int) -> Sequence[int]:
    return values if len(values) == n else [values[0]] * n


def _batch_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    out = _normed(x, weight, bias, mean, var, training, momentum, eps, False)
    if out is None:
        return None
    statistics = _statistics_type(x)
    return out, _new(x.shape[1:2], statistics), _new(x.shape[1:2], statistics)


def _normed(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn: bool,
) -> Tensor | None:
    """Batch norm without its by-products."""
    if x.dim() < 2 or not _plain(x) or not (training or (mean is not None and var is not None)):
        return None
    if training and x.numel() <= x.shape[1]:
        return None  # a single value has no variance: torch says so
    channels, dtype = x.shape[1:2], x.dtype
    for own in (weight, bias, mean, var):
        if own is not None and (own.dtype is not dtype or own.shape != channels):
            return None
    return _new(x.shape, dtype)


def _statistics_type(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in _HALVES else x.dtype


def _layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    shape, n = tuple(normalized_shape), len(normalized_shape)
    own = [t for t in (weight, bias) if t is not None]
    if not n or x.shape[-n:] != shape or not x.dtype.is_floating_point or not _plain(x):
        return None
    if any(t.dtype is not x.dtype or t.shape != shape or not _plain(t) for t in own):
        return None
    rows, statistics = (*x.shape[:-n], *[1] * n), _statistics_type(x)
    return _new(x.shape, x.dtype), _new(rows, statistics), _new(rows, statistics)


def _group_norm(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    n: int,
    c: int,
    positions: int,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor] | None:
    own = [t for t in (weight, bias) if t is not None]
    if x.dim() < 2 or groups < 1 or c % groups or not x.dtype.is_floating_point or not _plain(x):
        return None
    if x.shape[:2] != (n, c) or math.prod(x.shape[2:]) != positions:
        return None
    if any(t.dtype is not x.dtype or t.shape != (c,) or not _plain(t) for t in own):
        return None
    return _new(x.shape, x.dtype), _new((n, groups), x.dtype), _new((n, groups), x.dtype)


def _mm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 2 or b.dim() != 2 or a.shape[1] != b.shape[0] or a.dtype is not b.dtype:
        return None
    return _new((a.shape[0], b.shape[1]), a.dtype)


def _addmm(addend: Tensor, a: Tensor, b: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor | None:
    out = _mm(a, b)
    if out is None or not _plain(addend) or addend.dtype is not a.dtype or not out.numel():
        return None
    return out if _broadcast(out.shape, addend.shape) == out.shape else None


def _bmm(a: Tensor, b: Tensor) -> Tensor | None:
    if a.dim() != 3 or b.dim() != 3 or a.dtype is not b.dtype:
        return None
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        return None
    return _new((a.shape[0], a.shape[1], b.shape[2]), a.dtype)


def _grouped_mm(
    a: Tensor, b: Tensor, offs: Tensor | None = None, bias: Tensor | None = None, **rest: Any
) -> Tensor | None:
    """A matrix for each group of rows; torch's meta kernel refuses what its CPU kernel takes."""
    if a.dim() != 2 or b.dim() != 3 or offs is None or bias is not None or any(rest.values()):
        return None
    if a.shape[1] != b.shape[1] or a.dtype is not b.dtype or offs.shape != b.shape[:1]:
        return None
    return _new((a.shape[0], b.shape[2]), a.dtype)


def _histc(x: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """Counts; torch's meta kernel takes itself for a GPU's, which is not deterministic."""
    return _new((bins,), x.dtype)


def _cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor | None:
    first = tensors[0]
    n = first.dim()
    if not -n <= dim < n:
        return None
    dim %= n
    around, total = (*first.shape[:dim], *first.shape[dim + 1 :]), 0
    for tensor in tensors:
        shape = tensor.shape
        if tensor.dtype is not first.dtype or not _plain(tensor) or len(shape) != n:
            return None
        if (*shape[:dim], *shape[dim + 1 :]) != around:
            return None
        total += shape[dim]
    return _new((*first.shape[:dim], total, *first.shape[dim + 1 :]), first.dtype)


def _softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor | None:
    n = x.dim()
    fits = -n <= dim < n and x.dtype.is_floating_point and not half_to_float
    return _new(x.shape, x.dtype) if fits and _plain(x) else None


def _mean(
    x: Tensor,
    dim: Sequence[int] | None,
    keepdim: bool = False,
    *,
    dtype: torch.dtype | None = None,
) -> Tensor | None:
    n = x.dim()
    if not dim or dtype is not None or not x.dtype.is_floating_point or not _plain(x):
        return None
    if not all(-n <= d < n for d in dim) or len({d % n for d in dim}) < len(dim):
        return None
    gone = {d % n for d in dim}
    kept = (1 if k in gone else size for k, size in enumerate(x.shape) if keepdim or k not in gone)
    return _new(tuple(kept), x.dtype)


_UNARY = (
    "abs clamp clamp_max clamp_min cos elu erf exp gelu hardsigmoid hardswish hardtanh leaky_relu "
    "log mish neg pow.Tensor_Scalar reciprocal relu rsqrt sigmoid silu sin softplus sqrt tanh"
)
_BINARY = "add.Tensor div.Tensor maximum minimum mul.Tensor sub.Tensor"

_IN_PLACE = (
    "add_.Tensor clamp_ div_.Tensor elu_ gelu_ hardsigmoid_ hardswish_ hardtanh_ leaky_relu_ "
    "mish_ mul_.Tensor relu_ sigmoid_ silu_ sub_.Tensor tanh_"
)


def _table() -> dict[torch._ops.OpOverload, Quick]:
    named: dict[str, Quick] = {
        **dict.fromkeys(f"{_UNARY} {_BINARY}".split(), _pointwise),
        **dict.fromkeys(_IN_PLACE.split(), _in_place),
        "mean.dim": _mean,
        "convolution": _convolution,
        "native_batch_norm": _batch_norm,
        "batch_norm": _normed,
        "native_layer_norm": _layer_norm,
        "native_group_norm": _group_norm,
        "mm": _mm,
        "addmm": _addmm,
        "bmm": _bmm,
        "_grouped_mm": _grouped_mm,
        "histc": _histc,
        "cat": _cat,
        "_softmax": _softmax,
    }
    table = {}
    for name, quick in named.items():
        packet, _, overload = name.partition(".")
        table[getattr(getattr(torch.ops.aten, packet), overload or "default")] = quick
    return table


QUICK = _table()
"""The shortcut of each operator that has one."""
