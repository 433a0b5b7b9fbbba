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

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

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


Seen = Callable[[Use], None]


@contextmanager
def watched_uses(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Tells `seen` of every product with a parameter of the model while this stands.

    >>> import torch
    >>> layer = nn.Linear(3, 2)
    >>> with watched_uses(layer, lambda use: print(use.name, tuple(use.read.shape), use.bias)):
    ...     _ = layer(torch.ones(5, 3))
    weight (5, 3) bias
    """
    with plain_recurrence(model), _Watch(dict(model.named_parameters()), seen):
        yield


class _Watch(TorchDispatchMode):
    def __init__(self, parameters: Mapping[str, Tensor], seen: Seen) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen = seen
        self.names = {p.untyped_storage().data_ptr(): name for name, p in parameters.items()}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        reader = _READERS.get(func._schema.name.rpartition("::")[2])
        if reader is not None:
            reader(self, args, out)
        return out

    def name_of(self, tensor: Any) -> str | None:
        """The parameter whose memory a tensor is."""
        if not isinstance(tensor, Tensor):
            return None
        return self.names.get(tensor.untyped_storage().data_ptr())

    def product(self, left: Tensor, right: Tensor, made: Tensor, bias: Any = None) -> None:
        """Of two matrices, either of which may be the parameter."""
        name = self.name_of(right)
        if name is not None:
            self.seen(Use(name, right, left, made, self.name_of(bias)))
            return
        name = self.name_of(left)
        if name is not None:
            self.seen(Use(name, left.T, right.T, made.T))


def _mm(watch: _Watch, args: Any, out: Tensor) -> None:
    watch.product(args[0], args[1], out)


def _addmm(watch: _Watch, args: Any, out: Tensor) -> None:
    watch.product(args[1], args[2], out, args[0])


def _bmm(watch: _Watch, args: Any, out: Tensor) -> None:
    for left, right, made in zip(args[-2], args[-1], out, strict=True):
        watch.product(left, right, made)


def _mv(watch: _Watch, args: Any, out: Tensor) -> None:
    watch.product(args[-2], args[-1][:, None], out[:, None])


def _linear(watch: _Watch, args: Any, out: Tensor) -> None:
    bias = args[2] if len(args) > 2 else None
    watch.product(args[0].flatten(0, -2), args[1].T, out.flatten(0, -2), bias)


def _convolution(watch: _Watch, args: Any, out: Tensor) -> None:
    read, weight, bias, stride, padding, dilation, transposed, _, groups = args[:9]
    name = watch.name_of(weight)
    if name is None or transposed:
        return
    window = Window(tuple(stride), tuple(padding), tuple(dilation), groups)
    watch.seen(Use(name, weight, read, out, watch.name_of(bias), window))


_READERS: Mapping[str, Callable[[_Watch, Any, Tensor], None]] = {
    "mm": _mm,
    "addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _bmm,
    "mv": _mv,
    "addmv": _mv,
    "linear": _linear,
    "convolution": _convolution,
}
