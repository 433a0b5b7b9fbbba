"""Products with weights while a model runs: what each weight multiplies, and what comes out.

Operators are watched below autograd, where a linear layer, a fused projection, an expert picked
out of a stack and a functional call are the same few matrix products, so that no list of layer
types is needed. A weight is known by its memory: parts, transposes and stacks of it are found,
copies in another type or layout are not.

N positions, K features that a product sums over, M features that it makes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from secateur.core.modes import without_fast_path
from secateur.criteria.running import plain_recurrence


@dataclass(frozen=True, slots=True)
class Window:
    """How a convolution walks over its input."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


@dataclass(frozen=True, slots=True)
class Use:
    """One product with a parameter, or with a part of it.

    Without `window`: ``made_NM = read_NK @ weight_KM``, plus the parameter named `bias` if that was
    added by the same operator. With it: a convolution, ``weight`` [M, K / groups, kernel...] and
    `read` and `made` images [batch, channels, ...]. weight shares the parameter's memory.
    """

    name: str
    weight: Tensor
    read: Tensor
    made: Tensor
    bias: str | None = None
    window: Window | None = None


@dataclass(frozen=True, slots=True)
class Scaling:
    """One multiplication element by element with the parameter `name`, whose elements lie along
    the last dimension of `made`: what came out, with `bias` added if the same operator did that."""

    name: str
    made: Tensor
    bias: str | None = None


Seen = Callable[[Use], bool | None]
"""Says True where it changed the weight: the operator is then run again."""
Scaled = Callable[[Scaling], bool | None]


@contextmanager
def watched_uses(model: nn.Module, seen: Seen, *, scaled: Scaled | None = None) -> Iterator[None]:
    """Tells `seen` of every product with a parameter of the model while this stands, and `scaled`
    of every scaling by one: normalisations, and scales of layers.

    >>> layer = nn.Linear(3, 2)
    >>> with watched_uses(layer, lambda use: print(use.name, tuple(use.read.shape), use.bias)):
    ...     _ = layer(torch.ones(5, 3))
    weight (5, 3) bias
    """
    with showing_products(model), Watch(model, seen, scaled=scaled):
        yield


@contextmanager
def showing_products(model: nn.Module) -> Iterator[None]:
    """Without kernels that hide products from a `Watch`. This is the state of the process."""
    with plain_recurrence(model), without_fast_path():
        yield


class Watch(TorchDispatchMode):
    """What `watched_uses` enters: the state of one thread."""

    def __init__(self, model: nn.Module, seen: Seen, *, scaled: Scaled | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen, self.scaled = seen, scaled
        self.names = {p.untyped_storage().data_ptr(): name for name, p in model.named_parameters()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        reader = _READERS.get(func._schema.name.rpartition("::")[2])
        if reader is not None and (self.scaled is not None or reader not in _OF_SCALES):
            with torch.no_grad():
                changed = reader(self, args, out)
            if changed:
                return func(*args, **(kwargs or {}))
        return out

    def name_of(self, tensor: Any) -> str | None:
        """The parameter whose memory a tensor is."""
        if not isinstance(tensor, Tensor):
            return None
        return self.names.get(tensor.untyped_storage().data_ptr())

    def product(self, left: Tensor, right: Tensor, made: Tensor, bias: Any = None) -> bool | None:
        """Of two matrices, either of which may be the parameter."""
        name = self.name_of(right)
        if name is not None:
            return self.seen(Use(name, right, left, made, self.name_of(bias)))
        name = self.name_of(left)
        return self.seen(Use(name, left.T, right.T, made.T)) if name is not None else None


def _mm(watch: Watch, args: Any, out: Tensor) -> bool | None:
    return watch.product(args[0], args[1], out)


def _addmm(watch: Watch, args: Any, out: Tensor) -> bool | None:
    return watch.product(args[1], args[2], out, args[0])


def _bmm(watch: Watch, args: Any, out: Tensor) -> bool | None:
    changed = False
    for left, right, made in zip(args[-2], args[-1], out, strict=True):
        changed |= bool(watch.product(left, right, made))
    return changed


def _mv(watch: Watch, args: Any, out: Tensor) -> bool | None:
    return watch.product(args[-2], args[-1][:, None], out[:, None])


def _linear(watch: Watch, args: Any, out: Tensor) -> bool | None:
    bias = args[2] if len(args) > 2 else None
    return watch.product(args[0].flatten(0, -2), args[1].T, out.flatten(0, -2), bias)


def _convolution(watch: Watch, args: Any, out: Tensor) -> bool | None:
    read, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    name = watch.name_of(weight)
    if name is None or transposed:
        return None
    window = Window(tuple(stride), tuple(padding), tuple(dilation), groups)
    return watch.seen(Use(name, weight, read, out, watch.name_of(bias), window))


def _batch_norm(watch: Watch, args: Any, out: Any) -> bool | None:
    return _scaling(watch, args[1], args[2], out[0].movedim(1, -1))


def _layer_norm(watch: Watch, args: Any, out: Any) -> bool | None:
    return _scaling(watch, args[2], args[3], out[0].flatten(-len(args[1])))


def _group_norm(watch: Watch, args: Any, out: Any) -> bool | None:
    # the result has its shape only once the operator that called this one is done
    made = out[0].reshape(args[3], args[4], -1)
    return _scaling(watch, args[1], args[2], made.movedim(1, -1))


def _rms_norm(watch: Watch, args: Any, out: Any) -> bool | None:
    return _scaling(watch, args[2], None, out[0].flatten(-len(args[1])))


def _mul(watch: Watch, args: Any, out: Tensor) -> bool | None:
    names = [watch.name_of(value) for value in args[:2]]
    if (names[0] is None) == (names[1] is None):
        return None
    scale = args[0] if names[1] is None else args[1]
    wide = [k for k in range(scale.dim()) if scale.shape[k] > 1]
    if len(wide) != 1 or scale.dim() > out.dim():
        return None
    return _scaling(watch, scale, None, out.movedim(wide[0] - scale.dim(), -1))


def _scaling(watch: Watch, scale: Any, bias: Any, made: Tensor) -> bool | None:
    name = watch.name_of(scale)
    if name is None or watch.scaled is None or scale.numel() != made.shape[-1]:
        return None
    return watch.scaled(Scaling(name, made, watch.name_of(bias)))


_OF_SCALES = (_batch_norm, _layer_norm, _group_norm, _rms_norm, _mul)
_READERS: Mapping[str, Callable[[Watch, Any, Any], bool | None]] = {
    "mm": _mm,
    "addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _bmm,
    "mv": _mv,
    "addmv": _mv,
    "linear": _linear,
    "convolution": _convolution,
    "native_batch_norm": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "cudnn_batch_norm": _batch_norm,
    "native_layer_norm": _layer_norm,
    "native_group_norm": _group_norm,
    "_fused_rms_norm": _rms_norm,
    "mul": _mul,
}
