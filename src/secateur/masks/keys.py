"""Scores as integers whose order is that of the scores, read in chunks from where they lie.

The bits of a floating-point number without its sign, read as an integer, rise with its magnitude:
|w| needs no arithmetic and no copy, in any precision. Other scores are kept as float32 and read
with their sign. Positions count in the order of memory, whatever the layout (channels_last), so
that a pass over a model is one pass over its memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.errors import ScoreError

Keys = NDArray[Any]
"""Signed integers of two, four or eight bytes."""
CHUNK = 1 << 16
"""Elements read at a time: what is made of them stays in a core's own cache."""
LOWEST = -1
"""The key of a magnitude that is lower than all: a weight masked before."""
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
# the bits of infinity; those of NaN are above
INFINITY = {
    torch.float16: 0x7C00,
    torch.bfloat16: 0x7F80,
    torch.float32: 0x7F80_0000,
    torch.float64: 0x7FF0_0000_0000_0000,
}


@dataclass(frozen=True)
class Source:
    """The scores of one tensor.

    name: for errors. tensor: the scores. dtype: in which they are compared with those of other
    tensors. signed: whether the sign counts; without, a score is the magnitude. kept: of an earlier
    mask; what it masks comes before everything else.
    """

    name: str
    tensor: Tensor
    dtype: torch.dtype
    signed: bool = False
    kept: Tensor | None = None

    def __len__(self) -> int:
        return self.tensor.numel()

    @cached_property
    def _flat(self) -> Tensor:
        return flat(self.tensor)

    @cached_property
    def _flat_kept(self) -> Tensor | None:
        return None if self.kept is None else flat(self.kept, like=self.tensor)

    def keys(self, start: int, stop: int) -> Keys:
        """Those of the positions from `start` to `stop`, a new array."""
        kept = None if self._flat_kept is None else self._flat_kept[start:stop]
        return self._ordered(self._flat[start:stop], kept)

    def keys_at(self, positions: NDArray[np.int64]) -> Keys:
        """Those of single positions."""
        index = torch.from_numpy(positions).to(self.tensor.device)
        kept = None if self._flat_kept is None else self._flat_kept[index]
        return self._ordered(self._flat[index], kept)

    def rows(self, start: int, stop: int, *, last: int) -> Keys:
        """Those of a range of the first dimension that is left when `last` is moved to the end."""
        kept = None if self.kept is None else self.kept.movedim(last, -1)[start:stop]
        return self._ordered(self.tensor.detach().movedim(last, -1)[start:stop], kept)

    def _ordered(self, values: Tensor, kept: Tensor | None) -> Keys:
        bits = bits_of(values.to(dtype=self.dtype))
        magnitudes: Keys = np.bitwise_and(bits, np.iinfo(bits.dtype).max)
        if self.signed:
            np.negative(magnitudes, out=magnitudes, where=bits < 0)
        if kept is not None:
            magnitudes[~kept.cpu().numpy()] = lowest_key(self.dtype, signed=self.signed)
        return magnitudes


def common_dtype(dtypes: list[torch.dtype]) -> torch.dtype:
    """The one in which magnitudes of all of them are compared.

    >>> common_dtype([torch.bfloat16, torch.bfloat16]), common_dtype([torch.bfloat16, torch.half])
    (torch.bfloat16, torch.float32)
    """
    found = dtypes[0]
    for dtype in dtypes:
        found = torch.promote_types(found, dtype)
    return found


def key_of(value: float, dtype: torch.dtype) -> int:
    """The key of a magnitude, rounded to the type as torch rounds a number it compares with.

    >>> key_of(0.0, torch.float32), key_of(1.0, torch.float16) == 0x3C00
    (0, True)
    """
    return int(bits_of(torch.tensor([value], dtype=torch.float64).to(dtype))[0])


def lowest_key(dtype: torch.dtype, *, signed: bool) -> int:
    """The key of what was masked before, below those of all scores.

    >>> lowest_key(torch.float32, signed=False), lowest_key(torch.float16, signed=True)
    (-1, -32768)
    """
    return -(1 << 8 * dtype.itemsize - 1) if signed else LOWEST


def all_finite(keys: Keys, dtype: torch.dtype, *, signed: bool) -> bool:
    """Whether none of some keys is that of NaN or of an infinite score."""
    infinity = INFINITY[dtype]
    if int(keys.max()) >= infinity:
        return False
    # the lowest key stands for what an earlier mask hides
    return not signed or not bool(
        ((keys <= -infinity) & (keys != lowest_key(dtype, signed=True))).any()
    )


def not_finite(name: str) -> ScoreError:
    """The error for a tensor that cannot be ranked."""
    return ScoreError(
        f"{name} holds NaN or infinite values, which have no rank among the others; load a sound "
        f"checkpoint, set them with torch.nan_to_num_, or leave the tensor out: skip=({name!r},)"
    )


def bits_of(values: Tensor) -> Keys:
    """A tensor's bits as signed integers in main memory, shared with it where it lies there."""
    shared: Keys = values.detach().view(_BITS[values.dtype.itemsize]).cpu().numpy()
    return shared


def flat(tensor: Tensor, *, like: Tensor | None = None) -> Tensor:
    """A tensor's elements in the order of memory, without a copy if it has no gaps.

    like: whose order, in place of the tensor's own.
    """
    tensor = tensor.detach()
    order = tensor if like is None else like
    if tensor.stride() == order.stride() and is_dense(order):
        return tensor.as_strided((tensor.numel(),), (1,))
    if is_dense(order):
        other = torch.empty_strided(order.shape, order.stride(), dtype=tensor.dtype)
        return flat(other.to(tensor.device).copy_(tensor))
    return tensor.reshape(-1)


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill their memory, in whatever order of the dimensions."""
    expected = 1
    for size, stride in sorted(zip(tensor.shape, tensor.stride(), strict=True), key=_by_stride):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True


def _by_stride(dim: tuple[int, int]) -> tuple[int, int]:
    return dim[1], dim[0]
