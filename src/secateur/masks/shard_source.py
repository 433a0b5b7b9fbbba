"""The scores of which a rank holds a part, and what goes of them.

Read in chunks, as often as it takes, in the order of their flat indices; nothing of a shard's size
is allocated but the mask, at one bit a weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.shards import Shard
from secateur.core.world import World
from secateur.masks.keys import CHUNK, Keys, Source, all_finite, lowest_key, not_finite


@dataclass(frozen=True)
class ShardSource:
    """What lies here of a tensor's scores.

    scores: of the shape of the shard; where they are made, they are made anew for every pass.
    dtype, signed: as of `Source`. counted: whether this rank counts them, and no other. kept: an
    earlier mask of them, eight to a byte in the order of their flat indices.
    """

    name: str
    shard: Shard
    scores: Callable[[], Tensor]
    dtype: torch.dtype
    signed: bool = False
    counted: bool = True
    kept: NDArray[np.uint8] | None = None

    def chunks(self, start: int = 0, stop: int | None = None) -> Iterator[tuple[int, Keys]]:
        """Keys from `start`, a multiple of CHUNK, to `stop`, each chunk with its first index."""
        source = Source(self.name, self.scores().contiguous(), self.dtype, self.signed)
        stop = self.shard.own if stop is None else stop
        for k in range(start, stop, CHUNK):
            end = min(k + CHUNK, stop)
            keys = source.keys(k, end)
            if self.kept is not None:
                bits = np.unpackbits(self.kept[k // 8 : -(-end // 8)], count=end - k)
                keys[bits == 0] = self.lowest
            yield k, keys

    @property
    def lowest(self) -> int:
        """The key of what was masked before."""
        return lowest_key(self.dtype, signed=self.signed)


@dataclass(frozen=True)
class Pool:
    """Scores that are ranked together, and how many of them go."""

    sources: tuple[ShardSource, ...]
    count: int


@dataclass(frozen=True, slots=True)
class Cut:
    """What goes of a source: every key below `key`, and of those equal to it the ones among its
    first `first` elements."""

    key: int
    first: int


def at_most(sources: Sequence[ShardSource], key: int, world: World) -> list[Cut]:
    """What goes of each source where everything up to a key goes. Raises: as `smallest_of`."""
    check_sound(sources, world)
    return [Cut(key, source.shard.own) for source in sources]


def check_sound(sources: Sequence[ShardSource], world: World) -> None:
    """Raises: ScoreError on every rank that names the first tensor with NaN or infinite scores."""
    wrong = [not all(_sound(source, keys) for _, keys in source.chunks()) for source in sources]
    number = torch.tensor([sum(wrong)])
    world.sum_([number], what="whether all scores are finite")
    if not number.item():
        return
    found = torch.tensor(wrong, dtype=torch.int32)
    world.sum_([found], what="which scores are not finite")
    raise not_finite(sources[int(found.nonzero()[0])].name)


def kept_bits(source: ShardSource, cut: Cut) -> NDArray[np.uint8]:
    """What stays of a source's own elements, eight to a byte in the order of their flat indices."""
    out = np.empty(-(-source.shard.own // 8), dtype=np.uint8)
    for start, keys in source.chunks():
        kept = keys > cut.key
        late = max(cut.first - start, 0)
        kept[late:] |= keys[late:] == cut.key
        out[start // 8 : start // 8 + -(-len(keys) // 8)] = np.packbits(kept)
    return out


def _sound(source: ShardSource, keys: Keys) -> bool:
    return all_finite(keys, source.dtype, signed=source.signed)
