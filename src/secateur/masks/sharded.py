"""Mask a model of which each rank holds a part: the same masks as in one process, bit for bit.

Nothing of a parameter is sent: thresholds are found from sums of counts (`sharded_selection`),
plans are compared by hashes that add up (`digest`), and each rank zeroes what it holds (`held`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from secateur.core.shards import ShardedWorld
from secateur.masks.amount import (
    Amount,
    Sparsity,
    check_arguments,
    fits,
    how_many,
    misfit,
    named,
    settings_of,
    threshold_key,
)
from secateur.masks.dense import dense_fingerprint
from secateur.masks.held import HeldMask, hold_
from secateur.masks.patterns import Pattern, parse
from secateur.masks.scores import Asked
from secateur.masks.shard_source import Cut, Pool, ShardSource, at_most, check_sound, kept_bits
from secateur.masks.sharded_agreement import check_alike, check_whole, ones, shared_masks
from secateur.masks.sharded_patterns import (
    LocalTarget,
    block_source,
    check_aligned,
    n_of_m_bits,
    spread_bits,
)
from secateur.masks.sharded_plan import ShardedMaskPlan
from secateur.masks.sharded_scores import check_criterion, local_targets, shard_sources
from secateur.masks.sharded_selection import smallest_of
from secateur.masks.targets import targets

Bits = list[NDArray[np.uint8]]


def mask_shards_(
    model: nn.Module,
    world: ShardedWorld,
    *,
    sparsity: Sparsity | None = None,
    criterion: str = "l1",
    scope: str = "global",
    pattern: str = "unstructured",
    threshold: float | None = None,
    evidence: Mapping[str, Tensor] | None = None,
    skip: Sequence[str] = (),
) -> ShardedMaskPlan:
    """The plan of what is zero now, of a model sharded over the ranks of `world`: as `mask_`.

    Every rank calls this with the same arguments; `ShardedMaskPlan.digest` is the same on all, and
    that of the plan which `mask_` makes of the whole model. evidence: for a criterion that looks
    at more than the weight, such as its gradient, what it is told of each parameter by name, laid
    out as the parameter. The zeros are written into the weights; see `held`, and `keep_zeros_` for
    an optimizer.

    Raises: as `mask_`; ValueError for a pattern that the shards split; EngineError where ranks
    were asked for different things, or hold parts that are no whole.
    """
    form, amount = parse(pattern), Amount(sparsity, threshold, scope)
    check_arguments(form, amount)
    asked = Asked(criterion)
    check_criterion(asked, form, evidence)
    world.settle_(model)
    wanted = targets(model, skip=skip)
    if isinstance(sparsity, Mapping):
        wanted = named(wanted, sparsity)
    fitting = [target for target in wanted if fits(target, form)]
    notes = tuple(misfit(target, form) for target in wanted if target not in fitting)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    if not fitting:
        raise ValueError(f"pattern {pattern!r} fits none of the model's weights: {notes[0]}")
    settings = {**settings_of(asked, amount), "pattern": pattern, "skip": list(skip), "seed": 0}
    fingerprint = dense_fingerprint(model)
    check_alike(world, fingerprint, settings)
    own = local_targets(fitting, world)
    check_whole(own, world)
    bits = _bits(own, shard_sources(own, asked, evidence, world), asked, form, amount, world)
    for target, some in zip(fitting, bits, strict=True):
        mask = HeldMask(target.parameter, torch.from_numpy(some), world.local)
        hold_(target.places, mask)
    return ShardedMaskPlan(fingerprint, shared_masks(own, bits, world), settings, notes)


def _bits(
    own: Sequence[LocalTarget],
    scored: Sequence[ShardSource],
    asked: Asked,
    form: Pattern,
    amount: Amount,
    world: ShardedWorld,
) -> Bits:
    """What stays of each target's elements that lie here."""
    if form.of or form.is_block:
        check_aligned(own, form, world)
    if form.of:
        check_sound(scored, world)
        pairs = zip(own, scored, strict=True)
        return [n_of_m_bits(target, source, form) for target, source in pairs]
    if form.is_block:
        scored = [block_source(target, asked, form) for target in own]
    cuts = _cuts(scored, asked, amount, world)
    found = [kept_bits(source, cut) for source, cut in zip(scored, cuts, strict=True)]
    if form.is_block:
        return [spread_bits(target, some, form) for target, some in zip(own, found, strict=True)]
    return found


def _cuts(
    scored: Sequence[ShardSource], asked: Asked, amount: Amount, world: ShardedWorld
) -> list[Cut]:
    """What goes of each source."""
    if amount.threshold is not None:
        one = scored[0]
        key = threshold_key(amount.threshold, asked, dtype=one.dtype, signed=one.signed)
        return at_most(scored, key, world)
    masked = _masked(scored, world)
    if amount.is_by_layer:
        pools = [
            Pool((s,), how_many(s.shard.weights, amount.share(s.name), masked=gone, where=s.name))
            for s, gone in zip(scored, masked, strict=True)
        ]
    else:
        total = sum(source.shard.weights for source in scored)
        where = scored[0].name if len(scored) == 1 else "the model"
        count = how_many(total, amount.share(), masked=sum(masked), where=where)
        pools = [Pool(tuple(scored), count)]
    return [cut for found in smallest_of(pools, world) for cut in found]


def _masked(scored: Sequence[ShardSource], world: ShardedWorld) -> list[int]:
    """How many of each source an earlier mask hides, on all ranks."""
    if all(source.kept is None for source in scored):
        return [0] * len(scored)
    own = [
        0 if s.kept is None or not s.counted else s.shard.own - ones(s.kept, s.shard.own)
        for s in scored
    ]
    found = torch.tensor(own, dtype=torch.int64)
    world.sum_([found], what="how much is masked already")
    counts: list[int] = found.tolist()
    return counts
