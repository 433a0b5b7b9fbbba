"""The stages of a run that a pruned model and its random baseline share.

Each stage looks first whether an earlier run finished it. A variant's plan, checkpoints, log and
saved model have names of their own, so that one never reads the other's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from torch import nn

from secateur.cli.output import say
from secateur.cli.plan import plan_units, score_units
from secateur.cli.run_directory import RunDirectory, once, read_scores, write_scores
from secateur.cli.settings import RunSettings
from secateur.cli.subject import Subject, finetune_
from secateur.core.atomic import write_text
from secateur.core.budget import Budget
from secateur.core.errors import PlanMismatchError
from secateur.core.plan import Plan, Scores
from secateur.core.proof import Proof
from secateur.train.log import EpochRow


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


def scored(subject: Subject, variant: Variant) -> Scores:
    """The variant's scores, made now or read. Raises: ScoreError."""
    pruning = replace(subject.settings, criterion=variant.criterion)

    def make() -> Scores:
        say(f"{variant.name}: scoring by {variant.criterion}")
        return score_units(pruning, subject.loaded, subject.graph, subject.data)

    return once(
        variant.scores,
        make=make,
        write=lambda scores: write_scores(variant.scores, scores),
        read=lambda: read_scores(variant.scores),
    )


def planned(subject: Subject, variant: Variant, *, budget: Budget | None = None) -> Plan:
    """The variant's plan, made now or read; `budget` stands in for that of the settings.

    Raises: BudgetError, ScoreError, PlanMismatchError.
    """
    pruning = replace(subject.settings, criterion=variant.criterion)

    def make() -> Plan:
        return plan_units(pruning, subject.graph, scored(subject, variant), budget=budget)

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

    if variant.model.exists():
        return _saved(subject, variant)
    small = cut(subject.loaded.model, plan)
    if subject.batches is not None and subject.settings.recover is not None:
        _recover_(small, subject, variant)
    _save(small, subject, variant, plan)
    return small


def pruned_in_steps(subject: Subject, variant: Variant, steps: Path) -> tuple[Plan, nn.Module]:
    """Plan and model of the iterative loop, made now, gone on with, or read.

    steps: where the loop's outcome is written. Raises: TrainError, BudgetError, CutError.
    """
    from secateur.cli.loop import accepted_log, prune_in_steps
    from secateur.cut.compose import compose

    if steps.exists():
        return Plan.load(variant.plan), _saved(subject, variant)
    folder = variant.checkpoints
    result = prune_in_steps(subject, folder)
    scored(subject, variant)
    plans = [Plan.from_json(plan) for plan in result.plans]
    settings = {**plans[-1].settings, "budget": subject.settings.budget, "steps": len(plans)}
    plan = compose(subject.graph, plans, final=result.model, settings=settings)
    plan.save(variant.plan)
    write_text(variant.log, accepted_log(folder, result))
    _save(result.model, subject, variant, plan)
    write_text(steps, json.dumps(result.to_json(), indent=1) + "\n")
    return plan, result.model


def log_rows(variant: Variant) -> tuple[EpochRow, ...]:
    """The epochs of the variant's recovery; none where there was none."""
    if not variant.log.exists():
        return ()
    lines = variant.log.read_text(encoding="utf-8").splitlines()
    return tuple(EpochRow(**json.loads(line)) for line in lines)


def _recover_(small: nn.Module, subject: Subject, variant: Variant) -> None:
    batches, settings = subject.batches, subject.settings.recover
    assert batches is not None and settings is not None
    say(f"{variant.name}: recovering for up to {settings.epochs} epochs")
    seed, folder = subject.settings.seed, variant.checkpoints
    log = finetune_(small, batches, settings, seed=seed, folder=folder)
    write_text(variant.log, log.to_jsonl())


def _save(model: nn.Module, subject: Subject, variant: Variant, plan: Plan) -> None:
    from secateur.storage import save

    example, source = subject.loaded.example_inputs, subject.settings.model
    save(model, variant.model, plan=plan, example=example, source=source)


def _saved(subject: Subject, variant: Variant) -> nn.Module:
    from secateur.storage import load

    dense = subject.loaded
    return load(variant.model, dense.model_fn).to(next(dense.model.parameters()).device)
