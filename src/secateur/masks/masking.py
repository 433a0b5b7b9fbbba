"""Mask a model in place: score its weights, choose which go, and put masks on them.

The five parts of it are separate: which tensors (`targets`), how much each weight is worth
(`scores`), which are the smallest (`selection`), what zeros may stand where (`patterns`) and the
mask itself (`parametrization`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from secateur.criteria.gradients import LossFn
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
from secateur.masks.blocks import block_sources, spread
from secateur.masks.dense import dense_fingerprint
from secateur.masks.keys import Source
from secateur.masks.n_of_m import keep_n_of_m
from secateur.masks.packed import PackedMask, PackedMasks
from secateur.masks.parametrization import attach_
from secateur.masks.patterns import Pattern, parse
from secateur.masks.plan import MaskPlan
from secateur.masks.scores import Asked, sources
from secateur.masks.selection import below, kept_by, smallest
from secateur.masks.targets import Target, targets


def mask_(
    model: nn.Module,
    *,
    sparsity: Sparsity | None = None,
    criterion: str = "l1",
    scope: str = "global",
    pattern: str = "unstructured",
    threshold: float | None = None,
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    skip: Sequence[str] = (),
    seed: int = 0,
) -> MaskPlan:
    """The plan of what is zero now: `model` is masked in place, by parametrizations of torch.

    sparsity: share of zeros among all weights ("global") or in each tensor ("layer"); or by
    parameter name, for those alone. threshold: instead, everything whose score is at most this.
    pattern: "unstructured", N:M along the inputs ("2:4", needs no sparsity) or "block:4x1" (whole
    blocks of 4 outputs by 1 input, of which sparsity is a share). criterion, data, loss_fn, seed:
    as for `score`; a criterion must score single weights. skip: names of parameters or modules.

    Weights that a mask hides already stay hidden and count as zeros, so calling this again with a
    higher sparsity prunes step by step; `unmask_` first starts anew. Embeddings count as weights.
    Raises: ValueError for arguments that do not fit; ScoreError for NaN, infinite or missing
    values. The model is then as it was.

    >>> import torch
    >>> model = nn.Linear(2, 2)
    >>> _ = model.weight.data.copy_(torch.tensor([[1.0, -4.0], [3.0, -2.0]]))
    >>> plan = mask_(model, sparsity=0.5)
    >>> model.weight.tolist(), plan.sparsity
    ([[0.0, -4.0], [3.0, 0.0]], 0.5)
    """
    form, amount = parse(pattern), Amount(sparsity, threshold, scope)
    check_arguments(form, amount)
    asked = Asked(criterion, data, loss_fn, seed)
    wanted = targets(model, skip=skip)
    if isinstance(sparsity, Mapping):
        wanted = named(wanted, sparsity)
    fitting = [target for target in wanted if fits(target, form)]
    notes = tuple(misfit(target, form) for target in wanted if target not in fitting)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    if not fitting:
        raise ValueError(f"pattern {pattern!r} fits none of the model's weights: {notes[0]}")
    masks = _masks(model, fitting, asked, form, amount)
    fingerprint = dense_fingerprint(model)
    for target, kept in zip(fitting, masks, strict=True):
        attach_(target.places, kept)
    settings = {
        **settings_of(asked, amount),
        "pattern": pattern,
        "skip": list(skip),
        "seed": seed,
    }
    packed = {t.name: PackedMask.of(kept) for t, kept in zip(fitting, masks, strict=True)}
    return MaskPlan(fingerprint, PackedMasks(packed), settings, notes)


def _masks(
    model: nn.Module, wanted: Sequence[Target], asked: Asked, form: Pattern, amount: Amount
) -> list[Tensor]:
    if form.of:
        scored = sources(model, wanted, asked)
        return [
            keep_n_of_m(source, input_dim=target.input_dim, keep=form.keep, of=form.of)
            for target, source in zip(wanted, scored, strict=True)
        ]
    if form.is_block:
        scored = block_sources(model, wanted, asked, form)
        kept = _selected(scored, amount, asked)
        pairs = zip(kept, wanted, strict=True)
        return [spread(k, target.parameter, target.kept, form) for k, target in pairs]
    return _selected(sources(model, wanted, asked), amount, asked)


def _selected(scored: Sequence[Source], amount: Amount, asked: Asked) -> list[Tensor]:
    """What stays of each source."""
    if amount.threshold is not None:
        key = threshold_key(amount.threshold, asked, dtype=scored[0].dtype, signed=scored[0].signed)
        limit = below(scored, key)
        return [kept_by(source, limit, k) for k, source in enumerate(scored)]
    if amount.is_by_layer:
        counts = [_count([source], amount.share(source.name)) for source in scored]
        return [
            kept_by(source, smallest([source], count), 0)
            for source, count in zip(scored, counts, strict=True)
        ]
    limit = smallest(scored, _count(scored, amount.share()))
    return [kept_by(source, limit, k) for k, source in enumerate(scored)]


def _count(scored: Sequence[Source], share: float) -> int:
    """How many go. Raises: ValueError when more are masked already."""
    masked = sum(len(s) - int(s.kept.count_nonzero()) for s in scored if s.kept is not None)
    where = scored[0].name if len(scored) == 1 else "the model"
    return how_many(sum(map(len, scored)), share, masked=masked, where=where)
