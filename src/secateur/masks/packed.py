"""Masks at one bit a weight: what a plan holds, and what is written to disk."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.shards import Shard
from secateur.masks.digest import combined, mask_sums


@dataclass(frozen=True, eq=False)
class PackedMask:
    """bits: eight weights a byte, in the order of their flat indices. zeros: weights not kept."""

    shape: tuple[int, ...]
    zeros: int
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, kept: Tensor) -> PackedMask:
        """A boolean tensor packed; a copy."""
        flat = kept.cpu().contiguous().view(-1).numpy()
        zeros = len(flat) - int(np.count_nonzero(flat))
        return cls(tuple(kept.shape), zeros, np.packbits(flat))

    def unpacked(self) -> Tensor:
        """The boolean tensor, contiguous, a new one.

        >>> PackedMask.of(torch.tensor([[True], [False]])).unpacked().tolist()
        [[True], [False]]
        """
        flat = np.unpackbits(self.bits, count=self.weights).view(np.bool_)
        return torch.from_numpy(flat.reshape(self.shape))

    @property
    def weights(self) -> int:
        """How many there are."""
        return int(np.prod(self.shape))

    def about(self) -> dict[str, Any]:
        """All but the bits, of which there is a hash."""
        digest = hashlib.sha256(self.bits.tobytes()).hexdigest()
        return {"shape": list(self.shape), "zeros": self.zeros, "sha256": digest}

    @property
    def digest(self) -> str:
        """A hash that shards of the mask can add up, see `digest`."""
        return combined(mask_sums(self.bits, Shard.whole(self.shape)))


class PackedMasks(Mapping[str, Tensor]):
    """Boolean tensors by name, each unpacked when it is asked for."""

    def __init__(self, masks: Mapping[str, PackedMask]) -> None:
        self.masks = dict(masks)

    def __getitem__(self, name: str) -> Tensor:
        return self.masks[name].unpacked()

    def __iter__(self) -> Iterator[str]:
        return iter(self.masks)

    def __len__(self) -> int:
        return len(self.masks)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PackedMasks) and self.about() == other.about()

    def __hash__(self) -> int:
        return hash(tuple(self.masks))

    def about(self) -> dict[str, dict[str, Any]]:
        """Shape, number of zeros and hash of each."""
        return {name: mask.about() for name, mask in self.masks.items()}
