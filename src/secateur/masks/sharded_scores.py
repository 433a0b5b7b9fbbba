"""The scores of the weights that lie on a rank, ready to be ranked with those of the others.

Magnitudes are ranked where they lie. Other criteria make a tensor of scores of the size of the
shard, from the weights and from evidence of the same layout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.core.lookup import find, names
from secateur.core.shards import Part, ShardedWorld
from secateur.criteria.evidence import evidence_kind
from secateur.masks.held import held_at
from secateur.masks.keys import common_dtype
from secateur.masks.patterns import Pattern
from secateur.masks.scores import PACKAGE, Asked, wide
from secateur.masks.shard_source import ShardSource
from secateur.masks.sharded_patterns import LocalTarget
from secateur.masks.targets import Target


def check_criterion(asked: Asked, form: Pattern, evidence: Mapping[str, Tensor] | None) -> None:
    """Raises: ValueError for a criterion that cannot score a part of a tensor by itself."""
    if asked.ranks_magnitudes:
        return
    rule = vars(asked.rule)
    if form.is_block or not rule["NEEDS"] or not rule.get("POINTWISE", True):
        known = [name for name in names(PACKAGE) if _ranks_magnitudes(name)]
        raise ValueError(
            f"criterion {asked.criterion!r} cannot score a shard under pattern {form.text!r}: it "
            f"looks at more than single weights; use one of {', '.join(known)}"
        )
    kind = evidence_kind(asked.rule)
    if kind is not None and evidence is None:
        raise ScoreError(
            f"criterion {asked.criterion!r} looks at the {kind.replace('_', ' ')} of each weight; "
            "pass it by name and laid out as the parameters, for example "
            "evidence={name: p.grad for name, p in model.named_parameters()}, or use 'l1'"
        )


def _ranks_magnitudes(name: str) -> bool:
    return "element" in vars(find(PACKAGE, name, kind="criterion")) and Asked(name).ranks_magnitudes


def local_targets(wanted: Sequence[Target], world: ShardedWorld) -> list[LocalTarget]:
    """What lies here of each target, with the mask that is held there.

    Raises: ValueError for a parameter that was masked before it was sharded.
    """
    for target in wanted:
        if target.kept is not None:
            raise ValueError(
                f"{target.name} was masked before it was sharded, and every rank holds its whole "
                "mask; call fold_(model) before it is sharded, and mask it after"
            )
    parts = world.parts({target.name: target.parameter for target in wanted})
    found = []
    for target in wanted:
        held = held_at(*target.places[0])
        bits = None if held is None else held.bits.cpu().numpy()
        found.append(LocalTarget(target.name, parts[target.name], target.input_dim, bits))
    return found


def shard_sources(
    own: Sequence[LocalTarget],
    asked: Asked,
    evidence: Mapping[str, Tensor] | None,
    world: ShardedWorld,
) -> list[ShardSource]:
    """One source for each target, all comparable with each other. Raises: ScoreError."""
    if asked.ranks_magnitudes:
        dtype = common_dtype([target.part.tensor.dtype for target in own])
        return [_source(target, target.part.tensor, dtype, signed=False) for target in own]
    scores = _elements(own, asked, evidence, world)
    dtype = common_dtype([score.dtype for score in scores])
    pairs = zip(own, scores, strict=True)
    return [_source(target, score.to(dtype), dtype, signed=True) for target, score in pairs]


def _source(
    target: LocalTarget, scores: Tensor, dtype: torch.dtype, *, signed: bool
) -> ShardSource:
    part = target.part
    return ShardSource(
        target.name, part.shard, lambda: scores, dtype, signed, part.counted, target.bits
    )


def _elements(
    own: Sequence[LocalTarget],
    asked: Asked,
    evidence: Mapping[str, Tensor] | None,
    world: ShardedWorld,
) -> list[Tensor]:
    if evidence_kind(asked.rule) is None:
        return [asked.rule.element(wide(target.part.tensor)) for target in own]
    assert evidence is not None
    missing = [target.name for target in own if target.name not in evidence]
    if missing:
        raise ScoreError(
            f"evidence has nothing for {missing[0]}; add it, or leave the parameter out with "
            f"skip=({missing[0]!r},)"
        )
    told = world.parts({target.name: evidence[target.name] for target in own})
    for target in own:
        _check_layout(target.name, target.part, told[target.name])
    return [
        asked.rule.element(wide(target.part.tensor), wide(told[target.name].tensor))
        for target in own
    ]


def _check_layout(name: str, weights: Part, evidence: Part) -> None:
    if weights.shard != evidence.shard:
        raise ScoreError(
            f"the evidence of {name} is laid out as {evidence.shard}, its weights as "
            f"{weights.shard}; redistribute it to the parameter's placements"
        )
