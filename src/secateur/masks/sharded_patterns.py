"""N:M and blocks where each rank holds a part: whatever belongs together must lie on one rank.

Then N:M asks nobody, and blocks are ranked as weights are, a block being an element of a smaller
tensor that is sharded as the weights are. A group or a block that a shard's edge splits is an error
on every rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.shards import Part, Shard
from secateur.core.world import World
from secateur.masks.blocks import block_totals, blocks_kept, spread
from secateur.masks.keys import Source
from secateur.masks.n_of_m import keep_n_of_m
from secateur.masks.patterns import Pattern
from secateur.masks.scores import Asked
from secateur.masks.shard_source import ShardSource
from secateur.masks.zeroing import unpacked


@dataclass(frozen=True)
class LocalTarget:
    """What lies here of a parameter that is masked. input_dim: along which its inputs lie. bits:
    of an earlier mask."""

    name: str
    part: Part
    input_dim: int
    bits: NDArray[np.uint8] | None

    @property
    def kept(self) -> Tensor | None:
        """The earlier mask as booleans, a new tensor."""
        if self.bits is None:
            return None
        shard = self.part.shard
        return unpacked(torch.from_numpy(self.bits), 0, shard.own).view(shard.size)


def check_aligned(wanted: Sequence[LocalTarget], pattern: Pattern, world: World) -> None:
    """Raises: ValueError on every rank that names the first tensor of which a shard's edge splits
    what a pattern keeps together."""
    sizes = [_together(target, pattern) for target in wanted]
    wrong = [
        not all(_fits(target.part.shard, dim, size) for dim, size in own)
        for target, own in zip(wanted, sizes, strict=True)
    ]
    found = torch.tensor(wrong, dtype=torch.int32)
    world.sum_([found], what=f"whether shards split what {pattern.text} keeps together")
    for target, own, number in zip(wanted, sizes, found.tolist(), strict=True):
        if number:
            multiples = " and ".join(f"{size} along dimension {dim}" for dim, size in own)
            raise ValueError(
                f"pattern {pattern.text!r} needs shards of {target.name} that begin and end at "
                f"multiples of {multiples}, and {number} ranks have others of its shape "
                f"{target.part.shard.shape}; shard it along another dimension or over another "
                f"number of ranks, or leave it out: skip=({target.name!r},)"
            )


def _together(target: LocalTarget, pattern: Pattern) -> list[tuple[int, int]]:
    """How many indices of which dimensions belong together."""
    if pattern.of:
        return [(target.input_dim, pattern.of)]
    return [(dim, size) for dim, size in ((0, pattern.rows), (1, pattern.columns)) if size > 1]


def _fits(shard: Shard, dim: int, size: int) -> bool:
    start, end = shard.start[dim], shard.start[dim] + shard.size[dim]
    return not shard.own or (start % size == 0 and (end % size == 0 or end == shard.shape[dim]))


def n_of_m_bits(target: LocalTarget, scores: ShardSource, pattern: Pattern) -> NDArray[np.uint8]:
    """What N:M keeps here, eight elements to a byte."""
    if not target.part.shard.own:
        return np.empty(0, dtype=np.uint8)
    values = scores.scores().contiguous()
    source = Source(scores.name, values, scores.dtype, scores.signed, target.kept)
    kept = keep_n_of_m(source, input_dim=target.input_dim, keep=pattern.keep, of=pattern.of)
    return packed(kept)


def block_source(target: LocalTarget, asked: Asked, pattern: Pattern) -> ShardSource:
    """The scores of the blocks that lie here, summed anew for every pass."""
    shard, weights = _blocks(target.part.shard, pattern), target.part.tensor
    dtype = torch.float64 if weights.dtype is torch.float64 else torch.float32
    before = blocks_kept(target.kept, pattern)

    def scores() -> Tensor:
        if not shard.own:
            return torch.empty(shard.size, dtype=dtype)
        return block_totals(weights, target.kept, asked.rule, pattern).to(dtype)

    kept = None if before is None else packed(before)
    return ShardSource(target.name, shard, scores, dtype, True, target.part.counted, kept)


def spread_bits(
    target: LocalTarget, bits: NDArray[np.uint8], pattern: Pattern
) -> NDArray[np.uint8]:
    """The mask of the weights that lie here, of which these blocks stay."""
    shard = _blocks(target.part.shard, pattern)
    if not shard.own:
        return np.empty(0, dtype=np.uint8)
    kept = unpacked(torch.from_numpy(bits), 0, shard.own).view(shard.size)
    like = target.part.tensor
    return packed(spread(kept.to(like.device), like, target.kept, pattern))


def _blocks(shard: Shard, pattern: Pattern) -> Shard:
    """The shard in blocks in place of weights; only the last may be smaller than the others."""
    steps = (pattern.rows, pattern.columns, *(1,) * (len(shard.shape) - 2))
    shape, start, size = (
        tuple(-(-n // step) for n, step in zip(numbers, steps, strict=True))
        for numbers in (shard.shape, shard.start, shard.size)
    )
    return Shard(shape, start, size)


def packed(kept: Tensor) -> NDArray[np.uint8]:
    """Booleans, eight to a byte in the order of flat indices."""
    return np.packbits(kept.cpu().contiguous().view(-1).numpy())
