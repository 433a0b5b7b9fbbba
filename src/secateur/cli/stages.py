"""The stages of a run that a pruned model and its random baseline share.

Each stage looks first whether an earlier run finished it. A variant's plan, checkpoints, log and
saved model have names of their own, so that one never reads the other's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from secateur.cli.output import say
from secateur.cli.plan import plan_units, score_units
from secateur.cli.run_directory import RunDirectory, once, read_scores, write_scores
from secateur.cli.settings import RunSettings
from secateur.cli.sources import Batches, loss_fn
from secateur.core.atomic import write_text
from secateur.core.errors import PlanMismatchError
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.train.log import EpochRow

if TYPE_CHECKING:
    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel


@dataclass(frozen=True)
class Subject:
    """What is pruned: the dense model, its graph, the data and the settings."""

    settings: RunSettings
    loaded: LoadedModel
    graph: Graph
    data: Data | None
    batches: Batches | None


@dataclass(frozen=True, slots=True)
class Variant:
    """A way to choose units: by the criterion that was asked for, or at random."""

    name: str
    criterion: str
    scores: Path
    plan: Path
    checkpoints: Path
    log: Path
    model: Path


def variants(directory: RunDirectory, settings: RunSettings) -> list[Variant]:
    """The pruned model, and the random baseline where it is wanted."""
    pruned = Variant(
        "pruned",
        settings.criterion,
        directory.scores,
        directory.plan,
        directory.checkpoints / "pruned",
        directory.log,
        directory.model,
    )
    if not settings.baseline or settings.criterion == "random":
        return [pruned]
    random = directory.path / "random"
    return [
        pruned,
        Variant(
            "random",
            "random",
            random / "scores.safetensors",
            random / "plan.json",
            directory.checkpoints / "random",
            random / "log.jsonl",
            random / "model",
        ),
    ]


def planned(subject: Subject, variant: Variant) -> Plan:
    """The variant's plan, made now or read. Raises: BudgetError, ScoreError."""
    pruning = replace(subject.settings, criterion=variant.criterion)

    def make() -> Plan:
        say(f"{variant.name}: scoring by {variant.criterion}")
        scores = once(
            variant.scores,
            make=lambda: score_units(pruning, subject.loaded, subject.graph, subject.data),
            write=lambda scores: write_scores(variant.scores, scores),
            read=lambda: read_scores(variant.scores),
        )
        return plan_units(pruning, subject.graph, scores)

    plan = once(
        variant.plan,
        make=make,
        write=lambda plan: plan.save(variant.plan),
        read=lambda: Plan.load(variant.plan),
    )
    if plan.graph_hash != subject.graph.hash:
        raise PlanMismatchError(
            f"{variant.plan} was made for another graph of this model; the model's code or "
            "secateur changed since. Run again with another --out"
        )
    return plan


def proved(subject: Subject, plan: Plan, path: Path) -> Proof:
    """The proof of the cut, made now or read. Raises: ProofError, CutError."""
    from secateur.cut import cut, verify

    loaded = subject.loaded

    def make() -> Proof:
        say("comparing the cut model with the masked original")
        small = cut(loaded.model, plan)
        return verify(loaded.model, small, plan, loaded.example_inputs, graph=subject.graph)

    return once(
        path,
        make=make,
        write=lambda proof: write_text(path, json.dumps(proof.to_json(), indent=1) + "\n"),
        read=lambda: Proof(**json.loads(path.read_text(encoding="utf-8"))),
    )


def recovered(subject: Subject, variant: Variant, plan: Plan) -> nn.Module:
    """The cut model, recovered where there is data, and saved; read if an earlier run saved it.

    Recovery goes on from its newest checkpoint.
    Raises: TrainError, StorageError, CutError.
    """
    from secateur.cut import cut
    from secateur.storage import load, save

    loaded = subject.loaded
    if variant.model.exists():
        device = next(loaded.model.parameters()).device
        return load(variant.model, loaded.model_fn).to(device)
    small = cut(loaded.model, plan)
    if subject.batches is not None and subject.settings.recover is not None:
        _recover_(small, subject, variant)
    source = subject.settings.model
    save(small, variant.model, plan=plan, example=loaded.example_inputs, source=source)
    return small


def log_rows(variant: Variant) -> tuple[EpochRow, ...]:
    """The epochs of the variant's recovery; none where there was none."""
    if not variant.log.exists():
        return ()
    lines = variant.log.read_text(encoding="utf-8").splitlines()
    return tuple(EpochRow(**json.loads(line)) for line in lines)


def _recover_(small: nn.Module, subject: Subject, variant: Variant) -> None:
    from secateur.train.finetune import finetune

    batches, settings = subject.batches, subject.settings.recover
    assert batches is not None and settings is not None
    if settings.seed == 0:
        settings = replace(settings, seed=subject.settings.seed)
    say(f"{variant.name}: recovering for up to {settings.epochs} epochs")
    log = finetune(
        small,
        batches.train,
        settings=settings,
        loss_fn=loss_fn,
        validate=batches.validate,
        checkpoint_dir=variant.checkpoints,
    )
    write_text(variant.log, log.to_jsonl())
