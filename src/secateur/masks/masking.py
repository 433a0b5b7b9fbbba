"""Mask a model in place: score its weights, choose which go, and put masks on them.

The five parts of it are separate: which tensors (`targets`), how much each weight is worth
(`scores`), which are the smallest (`selection`), what zeros may stand where (`patterns`) and the
mask itself (`parametrization`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from secateur.criteria.gradients import LossFn
from secateur.masks.blocks import block_sources, spread
from secateur.masks.dense import dense_fingerprint
from secateur.masks.keys import Source, key_of
from secateur.masks.n_of_m import keep_n_of_m
from secateur.masks.packed import PackedMask, PackedMasks
from secateur.masks.parametrization import attach_
from secateur.masks.patterns import Pattern, parse
from secateur.masks.plan import MaskPlan
from secateur.masks.scores import Asked, sources
from secateur.masks.selection import below, kept_by, smallest
from secateur.masks.targets import Target, targets

SCOPES = ("global", "layer")
Sparsity = float | Mapping[str, float]


@dataclass(frozen=True)
class _Amount:
    """How much goes: a share, globally or of each layer, or what is at most a threshold."""

    sparsity: Sparsity | None
    threshold: float | None
    scope: str


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
    form, amount = parse(pattern), _Amount(sparsity, threshold, scope)
    _check_arguments(form, amount)
    asked = Asked(criterion, data, loss_fn, seed)
    wanted = targets(model, skip=skip)
    if isinstance(sparsity, Mapping):
        wanted = _named(wanted, sparsity)
    fitting = [target for target in wanted if _fits(target, form)]
    notes = tuple(_misfit(target, form) for target in wanted if target not in fitting)
    for note in notes:
        warnings.warn(note, stacklevel=2)
    if not fitting:
        raise ValueError(f"pattern {pattern!r} fits none of the model's weights: {notes[0]}")
    masks = _masks(model, fitting, asked, form, amount)
    fingerprint = dense_fingerprint(model)
    for target, kept in zip(fitting, masks, strict=True):
        attach_(target.places, kept)
    settings = {
        "sparsity": dict(sparsity) if isinstance(sparsity, Mapping) else sparsity,
        "threshold": threshold,
        "criterion": criterion,
        "scope": scope,
        "pattern": pattern,
        "skip": list(skip),
        "seed": seed,
    }
    packed = {t.name: PackedMask.of(kept) for t, kept in zip(fitting, masks, strict=True)}
    return MaskPlan(fingerprint, PackedMasks(packed), settings, notes)


def _masks(
    model: nn.Module, wanted: Sequence[Target], asked: Asked, form: Pattern, amount: _Amount
) -> list[Tensor]:
    if form.of:
        pairs = zip(wanted, sources(model, wanted, asked), strict=True)
        return [
            keep_n_of_m(source, input_dim=target.input_dim, keep=form.keep, of=form.of)
            for target, source in pairs
        ]
    if form.is_block:
        scored = block_sources(model, wanted, asked, form)
        kept = _selected(scored, amount, asked)
        return [spread(k, target, form) for k, target in zip(kept, wanted, strict=True)]
    return _selected(sources(model, wanted, asked), amount, asked)


def _selected(scored: Sequence[Source], amount: _Amount, asked: Asked) -> list[Tensor]:
    """What stays of each source."""
    if amount.threshold is not None:
        key = _threshold_key(scored[0], amount.threshold, asked)
        limit = below(scored, key)
        return [kept_by(source, limit, k) for k, source in enumerate(scored)]
    if amount.scope == "layer" or isinstance(amount.sparsity, Mapping):
        shares = [_share(amount.sparsity, source.name) for source in scored]
        pairs = list(zip(scored, shares, strict=True))
        counts = [_count([source], share) for source, share in pairs]
        return [
            kept_by(source, smallest([source], count), 0)
            for source, count in zip(scored, counts, strict=True)
        ]
    limit = smallest(scored, _count(scored, _share(amount.sparsity, "")))
    return [kept_by(source, limit, k) for k, source in enumerate(scored)]


def _share(sparsity: Sparsity | None, name: str) -> float:
    assert sparsity is not None
    return sparsity[name] if isinstance(sparsity, Mapping) else sparsity


def _count(scored: Sequence[Source], share: float) -> int:
    """How many go. Raises: ValueError when more are masked already."""
    total = sum(map(len, scored))
    count = round(share * total)
    masked = sum(len(s) - int(s.kept.count_nonzero()) for s in scored if s.kept is not None)
    if masked > count:
        where = scored[0].name if len(scored) == 1 else "the model"
        raise ValueError(
            f"{where} is masked to {masked / total:.2%} already, more than the sparsity of "
            f"{share:.2%} that is asked for; masks only grow. Call unmask_(model) first to choose "
            "among all weights again"
        )
    return count


def _threshold_key(source: Source, threshold: float, asked: Asked) -> int:
    if not source.signed:
        scale = threshold if asked.rule.POWER == 1 else threshold**0.5  # a square is ranked
        return key_of(scale, source.dtype)
    key = key_of(abs(threshold), source.dtype)
    return key if threshold >= 0 else -key


def _named(wanted: Sequence[Target], sparsity: Mapping[str, float]) -> list[Target]:
    known = {target.name: target for target in wanted}
    for name in sparsity:
        if name not in known:
            raise ValueError(
                f"sparsity names {name!r}, which is no weight that can be masked; there are: "
                f"{', '.join(list(known)[:6])}{', ...' if len(known) > 6 else ''}"
            )
    return [known[name] for name in known if name in sparsity]


def _fits(target: Target, form: Pattern) -> bool:
    return not form.of or target.parameter.shape[target.input_dim] % form.of == 0


def _misfit(target: Target, form: Pattern) -> str:
    size = target.parameter.shape[target.input_dim]
    return (
        f"{target.name} has {size} inputs, no multiple of {form.of}, and is left without a mask "
        f"under pattern {form.text!r}"
    )


def _check_arguments(form: Pattern, amount: _Amount) -> None:
    if amount.scope not in SCOPES:
        raise ValueError(f"unknown scope {amount.scope!r}; there are: {', '.join(SCOPES)}")
    sparsity, threshold = amount.sparsity, amount.threshold
    if form.sparsity is not None:
        if threshold is not None or sparsity not in (None, form.sparsity):
            raise ValueError(
                f"pattern {form.text!r} itself says how much goes, {form.sparsity:g}; leave "
                "sparsity and threshold out"
            )
        return
    if (sparsity is None) == (threshold is None):
        raise ValueError("give sparsity=0.8 or threshold=0.01, one of them: how much shall be zero")
    shares = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity or 0.0]
    for share in shares:
        if not 0 <= share < 1:
            raise ValueError(f"sparsity is the share of zeros, in [0, 1), not {share}")
    if threshold is not None and not abs(threshold) < float("inf"):
        raise ValueError(f"threshold must be a finite number, not {threshold}")
