"""Slicing tensors by kept indices, in one pass over what stays.

Fresh memory costs more than copying into it: what is in between is a block in the processor's
cache, and the same memory serves one tensor after another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Kept = tuple[Tensor | None, ...]
"""For each dimension the kept indices, int64 and ascending; None keeps the whole dimension."""
_BLOCK = 1 << 16
"""Elements of a block of rows."""


class Slicer:
    """Slices one tensor after another."""

    def __init__(self) -> None:
        self._memory: dict[torch.dtype, Tensor] = {}

    def __call__(self, tensor: Tensor, kept: Kept) -> Tensor:
        """What stays of a tensor, in memory of its own; the tensor itself where nothing goes.

        >>> Slicer()(torch.arange(6).view(2, 3), (None, torch.tensor([0, 2])))
        tensor([[0, 2],
                [3, 5]])
        """
        cut = [k for k, indices in enumerate(kept) if indices is not None]
        if not cut:
            return tensor
        if tensor.device.type != "cpu":
            kept = tuple(None if own is None else own.to(tensor.device) for own in kept)
        elif len(cut) > 1 and cut[0] == 0 and tensor.numel() > _BLOCK:
            inner = math.prod(tensor.shape[2:])
            if cut == [0, 1] and inner > 1 and tensor.is_contiguous():
                return self._pieces(tensor, kept, inner)
            return self._in_blocks(tensor, kept)
        # the dimension that shrinks most goes first, so that the least is copied
        for k in sorted(cut, key=lambda k: len(kept[k]) / tensor.shape[k]):  # type: ignore[arg-type]
            indices = kept[k]
            assert indices is not None
            tensor = tensor.index_select(k, indices)
        return tensor

    def _pieces(self, tensor: Tensor, kept: Kept, inner: int) -> Tensor:
        """Kernels of a convolution: each is one piece of memory, taken by its number."""
        rows, columns, *_ = kept
        assert rows is not None and columns is not None
        shape = (len(rows), len(columns))
        numbers = self._part(torch.int64, shape)
        torch.add((rows * tensor.shape[1])[:, None], columns, out=numbers)
        pieces = tensor.view(-1, inner).index_select(0, numbers.view(-1))
        return pieces.view(*shape, *tensor.shape[2:])

    def _in_blocks(self, tensor: Tensor, kept: Kept) -> Tensor:
        """Rows are selected a block at a time, and sliced from there into their place."""
        first, *others = kept
        assert first is not None
        shape = [n if own is None else len(own) for n, own in zip(tensor.shape, kept, strict=True)]
        out = torch.empty(shape, dtype=tensor.dtype, device=tensor.device)
        height = max(1, _BLOCK * tensor.shape[0] // tensor.numel())
        last = max(k for k, own in enumerate(kept) if own is not None)
        for chosen, target in zip(
            torch.split(first, height), torch.split(out, height), strict=True
        ):
            rows = self._part(tensor.dtype, (len(chosen), *tensor.shape[1:]))
            part = torch.index_select(tensor, 0, chosen, out=rows)
            for k, own in enumerate(others, start=1):
                if own is not None:
                    part = torch.index_select(part, k, own, out=target if k == last else None)
        return out

    def _part(self, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
        """Some of the memory that is used again."""
        size = math.prod(shape)
        memory = self._memory.get(dtype)
        if memory is None or memory.numel() < size:
            memory = self._memory[dtype] = torch.empty(size, dtype=dtype)
        return memory[:size].view(*shape)
