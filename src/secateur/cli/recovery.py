"""Training within a stage: settings of a recipe become what `finetune` is called with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from secateur.cli.distil_settings import DENSE, DistilSettings
from secateur.cli.output import say
from secateur.cli.recovery_settings import Recovery
from secateur.cli.sources import Batches, loss_fn
from secateur.cli.subject import Subject
from secateur.core.errors import TrainError
from secateur.engines.kinds import parse_kind
from secateur.train import (
    AttentionMaps,
    AttentionTransfer,
    Companion,
    Features,
    Logits,
    Outputs,
    TrainLog,
    distilled,
    finetune,
)
from secateur.train.distil_terms import Term
from secateur.train.objective import Objective
from secateur.train.settings import FinetuneSettings

TERMS: dict[str, Any] = {
    "logits": Logits,
    "outputs": Outputs,
    "features": Features,
    "attention_maps": AttentionMaps,
    "attention_transfer": AttentionTransfer,
}
"""The fields of `DistilSettings` that are followed, and the term that each is."""


def recover_(
    model: nn.Module,
    subject: Subject,
    settings: Recovery,
    *,
    folder: Path,
    companions: Sequence[Companion] = (),
) -> TrainLog:
    """Train a model in place, from its newest checkpoint in `folder` if there is one.

    Raises: TrainError without data, and those of `finetune`.
    """
    batches, objective = batches_of(subject), objective_of(settings, subject)
    return finetune(
        model,
        batches.train,
        settings=training_of(settings, subject),
        loss_fn=loss_fn if objective is None else None,
        objective=objective,
        companions=companions,
        **shared(model, subject, folder=folder),
    )


def shared(model: nn.Module, subject: Subject, *, folder: Path) -> dict[str, Any]:
    """What `finetune` is told of the ranks that share the training of a model: how, who validates
    what, and where its checkpoints go. Raises: TrainError, EngineError."""
    world, settings, batches = subject.world, subject.settings, batches_of(subject)
    if world.size == 1:
        return {"validate": batches.validate, "checkpoint_dir": folder}
    parallel = parse_kind(settings.parallel, ranks=world.size).make(
        world,
        model=model,
        example_inputs=subject.loaded.example_inputs,
        sync_batch_norm=settings.processes.sync_batch_norm,
    )
    validate = partial(batches.validate_by, world=parallel.rows)
    return {"parallel": parallel, "validate": validate, "checkpoint_dir": folder}


def batches_of(subject: Subject) -> Batches:
    """The batches to train on. Raises: TrainError where no data was named."""
    if subject.batches is None:
        raise TrainError("nothing can be trained without data; write for example data: digits")
    return subject.batches


def training_of(settings: Recovery, subject: Subject) -> FinetuneSettings:
    """What `finetune` is told; the run's seed where the settings have none of their own."""
    training = settings.training
    return replace(training, seed=subject.settings.seed) if training.seed == 0 else training


def steps_of(settings: Recovery, subject: Subject) -> int:
    """Optimizer steps of the whole training."""
    epoch = ceil(len(batches_of(subject).train) / settings.accumulate)
    return settings.epochs * min(epoch, settings.steps_per_epoch or epoch)


def objective_of(settings: Recovery, subject: Subject) -> Objective | None:
    """The objective that follows a teacher, None where there is none.

    Raises: ValueError for a teacher that cannot be found.
    """
    distil = settings.distil
    if distil is None:
        return None
    return distilled(loss_fn, _teacher(distil, subject), terms=terms_of(distil), hard=distil.hard)


def terms_of(distil: DistilSettings) -> tuple[Term, ...]:
    """What of the teacher is followed; its logits where nothing is named.

    >>> from secateur.cli.distil_settings import LogitsSettings
    >>> terms_of(DistilSettings(logits=LogitsSettings(temperature=2.0)))[0].temperature
    2.0
    """
    terms: list[Term] = []
    for name, term in TERMS.items():
        if (given := getattr(distil, name)) is not None:
            terms.append(term(**{item.name: getattr(given, item.name) for item in fields(given)}))
    return tuple(terms) or (Logits(),)


def _teacher(distil: DistilSettings, subject: Subject) -> nn.Module:
    if distil.teacher == DENSE:
        return subject.loaded.model
    from secateur.zoo.models import load_model

    say(f"loading the teacher {distil.teacher}")
    teacher = load_model(distil.teacher, weights=distil.weights, seed=subject.settings.seed).model
    return teacher.to(next(subject.loaded.model.parameters()).device)
