"""What ranks compare while they mask a model together, so that no difference stays hidden.

A difference is an error on every rank, with the tensor or the ranks where it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from secateur.core.errors import EngineError
from secateur.core.world import World
from secateur.masks.digest import MODULUS, STREAMS, combined, mask_sums, mixed
from secateur.masks.keys import CHUNK
from secateur.masks.sharded_patterns import LocalTarget
from secateur.masks.sharded_plan import ShardMask


def check_alike(world: World, fingerprint: str, settings: Mapping[str, Any]) -> None:
    """Raises: EngineError where ranks have other models or were asked for other masks."""
    body = json.dumps([fingerprint, settings], sort_keys=True)
    digest = hashlib.sha256(body.encode()).hexdigest()
    number = int(digest[:10], 16)
    total = torch.tensor([number])
    world.sum_([total], what="what is to be masked")
    differing = torch.tensor([int(total.item() != number * world.size)])
    world.sum_([differing], what="whether all mask the same")
    if not differing.item():
        return
    found = world.gather([fingerprint[:16], digest[:16]], what="who masks what")
    for place, words in enumerate(("have another model", "were asked for other masks")):
        others = [rank for rank, one in enumerate(found) if one[place] != found[0][place]]
        if others:
            raise EngineError(
                f"ranks {', '.join(map(str, others))} {words} than rank 0; build the same model "
                "and call mask_shards_ with the same arguments on every rank"
            )


def check_whole(own: Sequence[LocalTarget], world: World) -> None:
    """Raises: EngineError when the parts of a parameter are not the whole, each element once."""
    parts = [target.part for target in own]
    counts = torch.tensor([part.shard.own if part.counted else 0 for part in parts])
    total = counts.sum().view(1)
    world.sum_([total], what="whether the shards are the whole")
    if total.item() == sum(part.shard.weights for part in parts):
        return
    world.sum_([counts], what="which shards are not the whole")
    for target, count in zip(own, counts.tolist(), strict=True):
        weights = target.part.shard.weights
        if count != weights:
            raise EngineError(
                f"the ranks hold {count:,} of the {weights:,} weights of {target.name}, counted "
                "once; the model is sharded over other ranks than those of this world: pass the "
                "world of all ranks that hold a part"
            )


def shared_masks(
    own: Sequence[LocalTarget], bits: Sequence[NDArray[np.uint8]], world: World
) -> dict[str, ShardMask]:
    """The masks by name with the numbers and the hashes of the whole ones.

    Raises: EngineError where ranks that hold the same elements mask them in different ways.
    """
    sums = np.zeros((len(own), 1 + STREAMS), dtype=np.int64)
    for row, target, some in zip(sums, own, bits, strict=True):
        shard = target.part.shard
        row[0] = shard.own - ones(some, shard.own)
        row[1:] = mask_sums(some, shard)
    counted = np.array([target.part.counted for target in own])
    whole = torch.from_numpy(np.where(counted[:, None], sums, 0))
    world.sum_([whole], what="the hashes of the masks")
    if any(target.part.copies > 1 for target in own):
        _check_copies(own, sums[:, 1:], whole.numpy()[:, 1:], world)
    found = {}
    for target, some, row in zip(own, bits, whole.numpy(), strict=True):
        digest = combined(row[1:])
        found[target.name] = ShardMask(target.part.shard, some, int(row[0]), digest)
    return found


def _check_copies(
    own: Sequence[LocalTarget],
    sums: NDArray[np.int64],
    whole: NDArray[np.int64],
    world: World,
) -> None:
    """What all copies add up to must be what the counted ones do, as often as there are copies.

    sums: of this rank, by tensor and stream. whole: of the counted elements of all ranks. One
    number tells whether all is well, and more only are sent when it is not.
    """
    copies = np.array([target.part.copies for target in own])
    expected = whole * copies[:, None] % MODULUS
    total = torch.tensor([mixed(sums)])
    world.sum_([total], what="whether all copies are masked alike")
    if int(total.item()) % MODULUS == mixed(expected):
        return
    everything = torch.from_numpy(sums.copy())
    world.sum_([everything], what="which copies are not masked alike")
    wrong = (everything.numpy() % MODULUS != expected).any(1)
    name = own[int(wrong.argmax())].name
    raise EngineError(
        f"ranks that hold the same weights of {name} mask them in different ways: their copies of "
        "the model have drifted apart; load one checkpoint on all ranks"
    )


def ones(bits: NDArray[np.uint8], count: int) -> int:
    """How many of the first `count` bits are set.

    >>> ones(np.array([0b10000001, 0b11000000], dtype=np.uint8), 9)
    3
    """
    parts = range(0, count, CHUNK)
    some = (np.unpackbits(bits[k // 8 :], count=min(CHUNK, count - k)) for k in parts)
    return sum(int(np.count_nonzero(part)) for part in some)
