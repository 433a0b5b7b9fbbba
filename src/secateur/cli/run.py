"""`secateur run RECIPE`: the whole road, from a trained model to a smaller one with its evidence.

Trace, go through the stages, measure, report; the random baseline goes the same way to the same
budget. Every stage's values are files in the run directory, so the same command typed again goes on
where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from secateur.cli.engine import launch, starts_processes, world_of
from secateur.cli.output import is_first, say
from secateur.cli.plan import Planned, plan_model, score_units
from secateur.cli.report import Reported
from secateur.cli.road import PRUNED, RANDOM, Walked, at_random, is_random, walk
from secateur.cli.run_directory import RunDirectory, by_first, open_run, read_scores, solo
from secateur.cli.settings import RunSettings
from secateur.cli.stages.prune import proved
from secateur.cli.subject import Subject, fetch_subject
from secateur.cli.work import Place, write_model
from secateur.core.atomic import write_text
from secateur.core.errors import BudgetError
from secateur.core.proof import Proof
from secateur.core.world import World
from secateur.report.record import load_result, save_result
from secateur.report.result import Curve, Result
from secateur.report.row import ModelRow
from secateur.report.words import percent
from secateur.train.log import EpochRow

HARMLESS = ("out", "dry_run", "redo", "engine", "nproc", "address", "parallel", "processes")
"""Settings that say nothing about what the run's files hold."""


def run(settings: RunSettings) -> Reported | Planned:
    """Run every stage that is not finished yet; a dry run plans only and writes nothing.

    Raises: every error of the stages, StorageError for another run's directory.
    """
    if settings.dry_run:
        return _dry(settings)
    if starts_processes(settings):
        directory = open_run(settings.out, _decisive(settings), redo=settings.redo)
        if not directory.result.exists():
            launch(settings)
        return _told(directory, load_result(directory.result))
    with world_of(settings, device=settings.device) as world:
        return _run(settings, world)


def _run(settings: RunSettings, world: World) -> Reported:
    """The run as one rank of a world goes through it."""
    directory = RunDirectory(settings.out)
    open_ = partial(open_run, settings.out, _decisive(settings), redo=settings.redo)
    by_first(world, open_, what="the run directory")
    if world.first(directory.result.exists(), what="whether the run is finished"):
        say(f"{directory.path} is finished already")
        return _told(directory, load_result(directory.result))
    subject, stages = fetch_subject(settings, world=world), settings.road
    graph = json.dumps(subject.graph.to_json(), indent=1) + "\n"
    by_first(world, lambda: write_text(directory.graph, graph), what="the writing of the graph")
    roads = [walk(subject, directory, stages, name=PRUNED)]
    if settings.baseline and not is_random(stages):
        random = at_random(stages, roads[0])
        roads.append(walk(subject, directory.random, random, name=RANDOM))
    proof = _summed_up(subject, directory, roads[0])
    say("measuring")

    def measure() -> Result:
        result = _measured(subject, roads, proof)
        save_result(result, directory.result)
        return result

    result = solo(world, measure, what="the measurement")
    return _told(directory, load_result(directory.result) if result is None else result)


def _dry(settings: RunSettings) -> Planned:
    """The plan of the first stage."""
    first = settings.road[0]
    if first.prune is None:
        raise ValueError(
            f"a dry run shows the first stage's plan, and {first.name} has none; leave --dry-run "
            "out, or list a prune stage first"
        )
    if first.prune.gradual is not None:
        raise ValueError(
            "a dry run shows a plan, and with gradual there is none before the training; leave "
            "--dry-run out"
        )
    subject, seed = fetch_subject(settings), settings.seed
    scores = score_units(first.prune, subject.loaded, subject.graph, subject.data, seed=seed)
    loaded, graph = subject.loaded, subject.graph
    how: dict[str, Any] = {"seed": seed, "device": settings.served, "watts": settings.watts}
    return Planned(plan_model(first.prune, loaded, graph, scores, **how), None)


def _summed_up(subject: Subject, directory: RunDirectory, road: Walked) -> Proof | None:
    """The proof of all cuts as one; what several stages came to is written beside them."""
    if len(road.folders) > 1:
        write = partial(_write_sum, subject, directory, road)
        by_first(subject.world, write, what="the writing of the whole")
    if not (road.plan.keep or road.plan.removed):
        return None
    place = Place(subject, directory, road.name, prove=True)
    loaded = subject.loaded
    return proved(loaded.model, road.plan, subject.graph, place, example=loaded.example_inputs)


def _write_sum(subject: Subject, directory: RunDirectory, road: Walked) -> None:
    road.plan.save(directory.plan)
    write_model(road.model, directory.model, road.plan, subject)
    logs = [folder.log for folder in road.folders if folder.log.exists()]
    write_text(directory.log, "".join(log.read_text(encoding="utf-8") for log in logs))


def _measured(subject: Subject, roads: Sequence[Walked], proof: Proof | None) -> Result:
    """Dense, pruned and random side by side, measured in turns in this process."""
    from secateur.report.explain import explain
    from secateur.report.machine import this_machine

    settings, pruned = subject.settings, roads[0]
    rows = _rows(subject, roads)
    title = settings.model if subject.data is None else f"{settings.model} on {subject.data.about}"
    return Result(
        title=title,
        dense=rows["dense"],
        pruned=rows[PRUNED],
        random=rows.get(RANDOM),
        extra=pruned.rows[:-1],
        proof=proof,
        plan_hash=pruned.plan.hash,
        machine=this_machine(settings.device or "cpu"),
        curves=tuple(curve for road in roads if (curve := _curve(road)) is not None),
        explanation=explain(
            pruned.plan, graph=subject.graph, scores=read_scores(pruned.folders[0].scores)
        ),
        settings={**pruned.plan.settings, **_listed(settings)},
        seed=settings.seed,
        warnings=(*pruned.notes, *_about_zeros(rows[PRUNED]), *_priced(settings, rows)),
    )


def _rows(subject: Subject, roads: Sequence[Walked]) -> dict[str, ModelRow]:
    from secateur.cost.latency import measure_latency
    from secateur.report.evaluate import evaluate

    settings = subject.settings
    models = {"dense": subject.loaded.model, **{road.name: road.model for road in roads}}
    costs = {"dense": roads[0].plan.before, **{road.name: road.plan.after for road in roads}}
    latencies = measure_latency(
        models,
        subject.loaded.example_inputs,
        batch_size=settings.latency_batch,
        threads=settings.threads,
        runtime=settings.runtime,
        precision=settings.latency_precision,
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


def _priced(settings: RunSettings, rows: Mapping[str, ModelRow]) -> list[str]:
    """What a million requests cost, where a price is given."""
    dense, pruned = rows["dense"].latency, rows[PRUNED].latency
    if settings.price_per_hour is None or dense is None or pruned is None:
        return []
    from secateur.cli.serving_words import serving_line

    price = settings.price_per_hour
    line = serving_line(dense.median_ms, pruned.median_ms, batch=dense.batch, price_per_hour=price)
    say(line)
    return [line[0].upper() + line[1:] + "."]


def _curve(road: Walked) -> Curve | None:
    """Of all trainings on the road, one after another."""
    logs = [folder.log for folder in road.folders if folder.log.exists()]
    lines = [line for log in logs for line in log.read_text(encoding="utf-8").splitlines()]
    rows = [EpochRow(**json.loads(line)) for line in lines]
    if not rows:
        return None
    return Curve(
        road.name,
        loss=tuple(row.loss for row in rows),
        accuracy=tuple(row.metric for row in rows if row.metric is not None),
    )


def _listed(settings: RunSettings) -> dict[str, Any]:
    """The stages by name with what was said of each, for the report."""
    if settings.stages is None:
        return {}
    return {"stages": [{stage.name: _said(stage.settings)} for stage in settings.stages]}


def _said(settings: Any) -> dict[str, Any]:
    """What differs from the defaults that all stages of the kind have."""
    given: dict[str, Any] = {}
    for item in fields(settings):
        value = getattr(settings, item.name)
        made = item.default_factory
        if value != (item.default if made is MISSING else made()):
            given[item.name] = _said(value) if is_dataclass(value) else value
    return given


def _about_zeros(row: ModelRow) -> list[str]:
    if not row.zeros:
        return []
    return [
        f"{percent(row.zeros / row.params)} of the pruned model's parameters are zeros that are "
        "still there: storage and sparse kernels profit from them, the latency here does not."
    ]


def _told(directory: RunDirectory, result: Result) -> Reported:
    from secateur.report.html import write_report

    page = write_report(result, directory.report) if is_first() else directory.report
    for steps in (directory.steps, *sorted(directory.path.glob("stages/*/steps.json"))):
        outcome = json.loads(steps.read_text(encoding="utf-8")) if steps.exists() else {"met": True}
        if not outcome["met"]:
            raise BudgetError(
                f"the budget was not reached: {outcome['reason']}. The smallest model that held "
                f"the floor is in {directory.model}, its report in {page}"
            )
    return Reported(result, page)


def _decisive(settings: RunSettings) -> dict[str, Any]:
    """The settings that decide what the run's files hold, as JSON values."""
    body = asdict(settings)
    for name in HARMLESS:
        del body[name]
    return {key: str(value) if isinstance(value, Path) else value for key, value in body.items()}
