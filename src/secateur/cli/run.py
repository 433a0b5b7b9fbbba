"""`secateur run RECIPE`: the whole road, from a trained model to a smaller one with its evidence.

Trace, score, plan, cut, prove, recover, save, measure, report; the random baseline goes the same
way to the same budget. Every stage's value is a file in the run directory, so the same command
typed again goes on at the last finished stage.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from secateur.cli.loop import only_limit
from secateur.cli.output import say
from secateur.cli.plan import Planned, plan_units, score_units
from secateur.cli.report import Reported
from secateur.cli.run_directory import RunDirectory, open_run, read_scores
from secateur.cli.settings import RunSettings
from secateur.cli.stages import (
    Variant,
    log_rows,
    planned,
    proved,
    pruned_in_steps,
    recovered,
    variants,
)
from secateur.cli.subject import Subject, fetch_subject
from secateur.core.atomic import write_text
from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError
from secateur.core.plan import Plan
from secateur.core.proof import Proof
from secateur.report.record import load_result, save_result
from secateur.report.result import Curve, Result
from secateur.report.row import ModelRow


def run(settings: RunSettings) -> Reported | Planned:
    """Run every stage that is not finished yet; a dry run plans only and writes nothing.

    Raises: every error of the stages, StorageError for another run's directory.
    """
    if settings.dry_run:
        subject = fetch_subject(settings)
        scores = score_units(settings, subject.loaded, subject.graph, subject.data)
        return Planned(plan_units(settings, subject.graph, scores), None)
    directory = open_run(settings.out, _decisive(settings))
    if directory.result.exists():
        say(f"{directory.path} is finished already")
        return _told(directory, load_result(directory.result))
    subject = fetch_subject(settings)
    write_text(directory.graph, json.dumps(subject.graph.to_json(), indent=1) + "\n")
    ways = variants(directory, settings)
    plans, models, budget = {}, {}, None
    if settings.loop is not None:
        plan, model = pruned_in_steps(subject, ways[0], directory.steps)
        plans["pruned"], models["pruned"] = plan, model
        budget = _as_small_as(plan, only_limit(settings.budget))
    for way in ways[len(plans) :]:
        plans[way.name] = planned(subject, way, budget=budget)
    proof = proved(subject, plans["pruned"], directory.proof)
    for way in ways[len(models) :]:
        models[way.name] = recovered(subject, way, plans[way.name])
    result = _measured(subject, ways, plans, models, proof)
    save_result(result, directory.result)
    return _told(directory, result)


def _as_small_as(plan: Plan, limit: Limit) -> Budget:
    """The budget that the loop reached, for a fair baseline."""
    return Budget((Limit(limit.metric, None, limit.value(plan.after)),))


def _measured(
    subject: Subject,
    ways: list[Variant],
    plans: dict[str, Plan],
    models: dict[str, nn.Module],
    proof: Proof,
) -> Result:
    """Dense, pruned and random side by side, measured in turns in this process."""
    from secateur.report.explain import explain
    from secateur.report.machine import this_machine

    settings, plan = subject.settings, plans["pruned"]
    rows = _rows(subject, plans, models)
    title = settings.model if subject.data is None else f"{settings.model} on {subject.data.about}"
    scores = read_scores(ways[0].scores)
    return Result(
        title=title,
        dense=rows["dense"],
        pruned=rows["pruned"],
        random=rows.get("random"),
        proof=proof,
        plan_hash=plan.hash,
        machine=this_machine(settings.device or "cpu"),
        curves=tuple(curve for way in ways if (curve := _curve(way)) is not None),
        explanation=explain(plan, graph=subject.graph, scores=scores),
        settings=plan.settings,
        seed=settings.seed,
    )


def _rows(
    subject: Subject, plans: dict[str, Plan], models: dict[str, nn.Module]
) -> dict[str, ModelRow]:
    from secateur.cost.latency import measure_latency
    from secateur.report.evaluate import evaluate

    settings = subject.settings
    say("measuring")
    models = {"dense": subject.loaded.model, **models}
    costs = {"dense": plans["pruned"].before, **{name: plan.after for name, plan in plans.items()}}
    latencies = measure_latency(
        models,
        subject.loaded.example_inputs,
        batch_size=settings.latency_batch,
        threads=settings.threads,
    )
    return {
        name: evaluate(
            model,
            name,
            macs=costs[name].macs,
            peak_memory_bytes=costs[name].peak_memory_bytes,
            metric=subject.batches.measure if subject.batches is not None else None,
            latency=latencies[name],
        )
        for name, model in models.items()
    }


def _curve(way: Variant) -> Curve | None:
    rows = log_rows(way)
    if not rows:
        return None
    return Curve(
        way.name,
        loss=tuple(row.loss for row in rows),
        accuracy=tuple(row.metric for row in rows if row.metric is not None),
    )


def _told(directory: RunDirectory, result: Result) -> Reported:
    from secateur.report.html import write_report

    page = write_report(result, directory.report)
    if directory.steps.exists():
        steps = json.loads(directory.steps.read_text(encoding="utf-8"))
        if not steps["met"]:
            raise BudgetError(
                f"the budget was not reached: {steps['reason']}. The smallest model that held the "
                f"floor is in {directory.model}, its report in {page}"
            )
    return Reported(result, page)


def _decisive(settings: RunSettings) -> dict[str, Any]:
    """The settings that decide what the run's files hold, as JSON values."""
    body = asdict(settings)
    for name in ("out", "dry_run"):
        del body[name]
    return {key: str(value) if isinstance(value, Path) else value for key, value in body.items()}
