"""`mask`: single weights are held at zero, at once or on a schedule of the training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from secateur.cli.mask_settings import DynamicMasks, GradualMasks, MaskStage
from secateur.cli.output import say
from secateur.cli.recovery import recover_, steps_of
from secateur.cli.recovery_settings import Recovery
from secateur.cli.sources import calibration, loss_fn, on_device
from secateur.cli.subject import Subject
from secateur.cli.work import Place, Work
from secateur.masks import DynamicSparsity, GradualMasking, MaskPlan, erdos_renyi, mask_
from secateur.masks.dense import dense_fingerprint
from secateur.masks.packed import PackedMask, PackedMasks
from secateur.masks.targets import targets
from secateur.train.masking import Masking, MaskSchedule


def run(work: Work, settings: MaskStage, place: Place) -> Work:
    """The model masked, and trained where the stage says so.

    Raises: ValueError for names and patterns that the model does not have; ScoreError, TrainError.
    """
    subject, model, recovery = place.subject, work.model, settings.recover
    say(f"{place.name}: masking by {settings.criterion}, {settings.pattern}")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan, schedule = _masked_(model, settings, subject)
    notes = tuple(dict.fromkeys(str(warning.message) for warning in caught))
    for note in notes:
        say(f"note: {note}")
    if recovery is not None and subject.batches is not None:
        say(f"{place.name}: recovering for up to {recovery.epochs} epochs")
        if settings.gradual is not None:  # the best epoch may be one with fewer zeros
            recovery = replace(recovery, restore_best=False)
        along = [] if schedule is None else [Masking(schedule)]
        folder = place.folder.checkpoints
        log = recover_(model, subject, recovery, folder=folder, companions=along)
        place.write_text(place.folder.log, log.to_jsonl())
    before = () if work.masks is None else work.masks.notes
    masks = plan_of(model, settings=plan.settings, notes=tuple(dict.fromkeys((*before, *notes))))
    return replace(work, masks=masks)


def plan_of(model: nn.Module, *, settings: Any, notes: tuple[str, ...]) -> MaskPlan:
    """The masks that a model has now, for schedules move them.

    >>> layer = nn.Linear(2, 2)
    >>> plan = mask_(layer, sparsity=0.5)
    >>> plan_of(layer, settings=plan.settings, notes=()) == plan
    True
    """
    kept = {t.name: PackedMask.of(t.kept) for t in targets(model) if t.kept is not None}
    return MaskPlan(dense_fingerprint(model), PackedMasks(kept), settings, notes)


def _masked_(
    model: nn.Module, settings: MaskStage, subject: Subject
) -> tuple[MaskPlan, MaskSchedule | None]:
    how = _how(settings, subject)
    if settings.gradual is not None and settings.recover is not None:
        steps = steps_of(settings.recover, subject)
        gradual = _gradual(model, settings, settings.gradual, steps=steps, how=how)
        return gradual.plan, gradual
    sparsity = settings.sparsity
    if settings.erdos_renyi and isinstance(sparsity, float):
        sparsity = erdos_renyi(model, sparsity=sparsity, skip=settings.skip)
    plan = mask_(model, sparsity=sparsity, threshold=settings.threshold, **how)
    if settings.dynamic is not None and settings.recover is not None:
        return plan, _dynamic(model, settings.dynamic, settings.recover, subject)
    return plan, None


def _gradual(
    model: nn.Module, settings: MaskStage, gradual: GradualMasks, *, steps: int, how: dict[str, Any]
) -> GradualMasking:
    assert isinstance(settings.sparsity, float)
    return GradualMasking(
        model,
        sparsity=settings.sparsity,
        start=round(gradual.begin * steps),
        stop=max(1, round(gradual.end * steps)),
        interval=gradual.interval,
        initial=gradual.initial,
        power=gradual.power,
        **how,
    )


def _dynamic(
    model: nn.Module, dynamic: DynamicMasks, recovery: Recovery, subject: Subject
) -> DynamicSparsity:
    return DynamicSparsity(
        model,
        stop=max(1, round(dynamic.end * steps_of(recovery, subject))),
        interval=dynamic.interval,
        fraction=dynamic.fraction,
        grow=dynamic.grow,
        decay=dynamic.decay,
        seed=subject.settings.seed,
    )


def _how(settings: MaskStage, subject: Subject) -> dict[str, Any]:
    """What `mask_` is told besides how much."""
    return {
        "criterion": settings.criterion,
        "scope": settings.scope,
        "pattern": settings.pattern,
        "data": _data(settings, subject),
        "loss_fn": loss_fn,
        "skip": tuple(settings.skip),
        "seed": subject.settings.seed,
    }


def _data(settings: MaskStage, subject: Subject) -> Iterable[Any] | None:
    seed = subject.settings.seed
    batches = calibration(subject.data, samples=settings.calibration, seed=seed)
    device: torch.device = next(subject.loaded.model.parameters()).device
    return on_device(batches, device)
