"""The scores of single weights by any criterion that has `element`, ready to be ranked.

Where the criterion is the magnitude or its square, the weights themselves are ranked where they
lie. Others make a tensor of scores for each parameter, averaged over the rounds of evidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.errors import ScoreError
from secateur.core.lookup import find, names
from secateur.core.world import ALONE, World
from secateur.criteria.evidence import Calibration, Round, averaged, evidence_kind, rounds
from secateur.criteria.gradients import LossFn
from secateur.criteria.matrices import generator_of
from secateur.criteria.sound import finite
from secateur.criteria.together import together
from secateur.masks.keys import Source, common_dtype, not_finite
from secateur.masks.parametrization import fold_
from secateur.masks.targets import Target

PACKAGE = "secateur.criteria"


@dataclass(frozen=True)
class Asked:
    """How weights are scored. data, loss_fn: for criteria that need them. seed: of random ones.
    world: ranks that share the data, and get the same numbers."""

    criterion: str = "l1"
    data: Iterable[Any] | None = None
    loss_fn: LossFn | None = None
    seed: int = 0
    world: World = ALONE

    @property
    def rule(self) -> ModuleType:
        """The criterion's module. Raises: ValueError when it does not score single weights."""
        rule = find(PACKAGE, self.criterion, kind="criterion")
        if "element" not in vars(rule):
            known = [n for n in names(PACKAGE) if "element" in vars(_module(n))]
            raise ValueError(
                f"criterion {self.criterion!r} scores whole units, not single weights; those that "
                f"do are: {', '.join(known)}"
            )
        return rule

    @property
    def ranks_magnitudes(self) -> bool:
        """Whether the order of the scores is that of the magnitudes."""
        return vars(self.rule).get("TERM") in (torch.abs, torch.square)


def sources(model: nn.Module, wanted: Sequence[Target], asked: Asked) -> list[Source]:
    """One source for each target, all comparable with each other.

    Raises: ScoreError for missing data or evidence; ValueError for a criterion without `element`.
    """
    if asked.ranks_magnitudes:
        dtype = common_dtype([target.parameter.dtype for target in wanted])
        return [Source(t.name, t.parameter, dtype, kept=t.kept) for t in wanted]
    scores = elements(model, wanted, asked)
    dtype = common_dtype([tensor.dtype for tensor in scores])
    return [
        Source(t.name, tensor.to(dtype), dtype, signed=True, kept=t.kept)
        for t, tensor in zip(wanted, scores, strict=True)
    ]


def elements(model: nn.Module, wanted: Sequence[Target], asked: Asked) -> list[Tensor]:
    """The criterion's number for every weight, float32 at least, in the parameters' layout."""
    with together(asked.world, what=f"scores of weights by {asked.criterion}") as ranks:
        rule = asked.rule
        for target in wanted:
            if not finite(target.parameter):
                raise not_finite(target.name)
        kind = evidence_kind(rule)
        if kind is not None:
            return _averaged(model, wanted, replace(asked, world=ranks), kind)
        if rule.NEEDS:
            return [rule.element(wide(t.parameter)) for t in wanted]
        return [
            rule.element(wide(t.parameter), generator=generator_of(t.name, asked.seed))
            for t in wanted
        ]


def _averaged(model: nn.Module, wanted: Sequence[Target], asked: Asked, kind: str) -> list[Tensor]:
    def score(found: Round) -> dict[str, Tensor]:
        scores = {}
        for target in wanted:
            evidence = found.get(target.name)
            if evidence is None:
                raise ScoreError(
                    f"no {kind.replace('_', ' ')} reaches {target.name}: it is frozen or nothing "
                    "depends on it; call requires_grad_(True) on it, leave it out with "
                    f"skip=({target.name!r},), or use criterion='l1'"
                )
            scores[target.name] = asked.rule.element(wide(target.parameter), wide(evidence))
        return scores

    told = Calibration(asked.criterion, asked.data, asked.loss_fn, asked.seed, asked.world)
    told = told.agreed(model)
    like = {target.name: target.parameter for target in wanted}
    found = rounds(kind, _without_masks(model, wanted), told)
    scores = averaged(kind, found, score, like=like, world=asked.world)
    return [scores[target.name] for target in wanted]


def _without_masks(model: nn.Module, wanted: Sequence[Target]) -> nn.Module:
    """The model, or a folded copy: a weight is known by its memory, a masked one has none."""
    if all(target.kept is None for target in wanted):
        return model
    return fold_(copied(model))


def wide(tensor: Tensor) -> Tensor:
    """The tensor in float32 at least, outside of autograd."""
    tensor = tensor.detach()
    return tensor.float() if tensor.dtype.itemsize < 4 else tensor


def _module(name: str) -> ModuleType:
    return find(PACKAGE, name, kind="criterion")
