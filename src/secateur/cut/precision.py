"""The precision of a comparison: everything in it, whatever a model casts inside.

Many models compute a norm, a softmax or their logits in float32 by their own decision. In a proof
in float64 such a cast is one to float64 instead, on both sides, so that what is compared is the
cut and not rounding. `Lowest` notes the least precise type that was computed in all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

M = TypeVar("M", bound=nn.Module)
TOLERANCE = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.float16: 5e-2,
    torch.bfloat16: 1e-1,
}
"""Largest difference allowed, relative to the largest output."""


def cast_floats(inputs: Any, dtype: torch.dtype | None) -> Any:
    """Inputs with their floating-point tensors in `dtype`; unchanged for None."""
    if dtype is None:
        return inputs
    if isinstance(inputs, Mapping):
        return {key: cast_floats(value, dtype) for key, value in inputs.items()}
    return tree_map_only(Tensor, lambda t: t.to(dtype) if t.is_floating_point() else t, inputs)


def cast_(model: M, dtype: torch.dtype) -> M:
    """The model in `dtype`, with the tensors that it keeps in plain attributes; returns it."""
    model.to(dtype)
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.is_floating_point():
                vars(module)[name] = value.to(dtype)
    return model


@contextmanager
def computing_in(dtype: torch.dtype | None) -> Iterator[None]:
    """Casts to a narrower type, and tensors made of one, have `dtype` while the block runs.

    >>> with computing_in(torch.float64):
    ...     torch.zeros(2, dtype=torch.float64).float().dtype
    torch.float64
    """
    if dtype is None:
        yield
        return
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with _Widened(dtype):
            yield
    finally:
        torch.set_default_dtype(before)


class _Widened(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Replaces narrower types among the arguments of operators."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        wanted = TOLERANCE.get(dtype, 0.0)
        self.dtype = dtype
        self.narrower = {other for other, allowed in TOLERANCE.items() if allowed > wanted}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.aten.lift_fresh.default and args[0].dtype in self.narrower:
            return func(args[0].to(self.dtype))  # torch.tensor(2.0, dtype=torch.float32)
        if any(type(item) is torch.dtype for item in (*args, *kwargs.values())):
            args = tuple(self._widened(item) for item in args)
            kwargs = {key: self._widened(item) for key, item in kwargs.items()}
        return func(*args, **kwargs)

    def _widened(self, item: Any) -> Any:
        return self.dtype if type(item) is torch.dtype and item in self.narrower else item


class Lowest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the lowest precision in which a forward computes."""

    dtype = torch.float64

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, (tuple, list)) and out else out
        if isinstance(first, Tensor) and first.dtype in TOLERANCE:
            self.dtype = max(self.dtype, first.dtype, key=TOLERANCE.__getitem__)
        return out
