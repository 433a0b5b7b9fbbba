"""`secateur search`: the front of accuracy and cost, over criteria, allocations and recoveries.

The same command in the same folder goes on where it stopped; typed twice at a time, two processes
share the search. After every trial the front lies in the folder, as a table, a plot and plans.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.engine import default_count, handed_over, needs_gpu
from secateur.cli.engine_settings import SINGLE
from secateur.cli.output import say, table
from secateur.cli.search_settings import CREWS, SearchSettings
from secateur.cli.sources import (
    Batches,
    calibration,
    check_fits,
    fetch_data,
    fetch_model,
    loss_fn,
    make_batches,
    on_device,
)
from secateur.core.atomic import write_text
from secateur.core.copies import copied
from secateur.core.lookup import find
from secateur.report.pareto_chart import front_chart
from secateur.report.standalone import standalone
from secateur.report.words import percent, plural
from secateur.search.study import search_front
from secateur.search.study_found import Found, read_found
from secateur.search.timing import Device, cache_folder
from secateur.search.trial import Trial
from secateur.search.trial_task import Early, Task
from secateur.storage import load

if TYPE_CHECKING:
    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel


WORKER = "secateur.cli.search_worker"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is searched for: the model, the data, and its batches."""

    loaded: LoadedModel
    data: Data
    batches: Batches


@dataclass(frozen=True, slots=True)
class Searched:
    """What was found. tested: accuracy on the test split of the models that were kept, by trial."""

    found: Found
    tested: Mapping[int, float]
    model: str

    def to_json(self) -> dict[str, Any]:
        """What `front.json` holds."""
        body = self.found.to_json()
        for entry in (*body["front"], *body["line"]):
            entry["test"] = self.tested.get(entry["number"])
        return body

    def print_on(self, console: Console) -> None:
        """The front as a table, and what to do with it."""
        found, folder = self.found, self.found.folder.path
        summary = f"{found.summary}; dense accuracy {percent(found.dense)}"
        lines: list[RenderableType] = [summary, "", self._table(), ""]
        if found.line:
            word = "every one" if found.dominates else f"{found.beaten}"
            lines.append(f"the front beats {word} of the line's {plural(len(found.line), 'point')}")
        lines.append(f"the front is in {folder}/front.csv, front.json, front.md and front.svg")
        if found.front:
            best = found.plan(found.front[0])
            lines.append(f"a plan is applied by: secateur apply {self.model} {best} --out FOLDER")
        console.print(Stacked(*lines))

    def _table(self) -> Table:
        found = self.found
        figures = ["validation", "test", *(f"{name} left" for name in found.costs)]
        rows = table("trial", *figures, "how", numbers=frozenset({"trial", *figures}))
        for trial in found.front:
            shares = [percent(trial.costs[name]) for name in found.costs]
            how = trial.choice.words + (" (the line)" if trial.line else "")
            metrics = (percent(trial.metric), percent(self.tested.get(trial.number)))
            rows.add_row(str(trial.number), *metrics, *shares, how)
        return rows


def search(settings: SearchSettings) -> Searched:
    """Search up to the limits, or go on with it, or join it; write the front.

    Raises: ValueError, StorageError, TraceError, TrainError; EngineError when too many workers of
    an engine were lost.
    """
    if settings.engine == SINGLE:
        found, subject = take_part(settings)
    else:
        _share(settings)
        found, subject = read_found(settings.out), _fetched(settings)
    searched = Searched(found, _tested(found, subject.loaded, subject.batches), settings.model)
    _write(searched)
    return searched


def take_part(settings: SearchSettings) -> tuple[Found, Subject]:
    """Run trials until there are none left for this process, and write the front after each."""
    subject = _fetched(settings)

    def told(trial: Trial, found: Found) -> None:
        say(_told(trial, found, settings.trials))
        _write(Searched(found, {}, settings.model))

    found = search_front(
        _task(settings, subject),
        settings.out,
        space=settings.space,
        limits=settings.limits,
        seed=settings.seed,
        keep_models=settings.models,
        on_trial=told,
    )
    return found, subject


def _share(settings: SearchSettings) -> None:
    """Let workers of the engine take part."""
    crew = find(CREWS, settings.engine, kind="engine")
    own = replace(settings, engine=SINGLE, workers=None, address=None)
    workers = settings.workers or default_count(settings)
    gpu, address = needs_gpu(settings), settings.address
    with handed_over(own, near=settings.out) as folder:
        crew.share(WORKER, folder, workers=workers, gpu=gpu, address=address)


def _fetched(settings: SearchSettings) -> Subject:
    loaded = fetch_model(settings, seed=settings.seed, device=settings.device)
    data = fetch_data(settings.data)
    assert data is not None
    check_fits(loaded, data)
    return Subject(
        loaded, data, make_batches(data, batch_size=settings.batch_size, seed=settings.seed)
    )


def _task(settings: SearchSettings, subject: Subject) -> Task:
    loaded, data, batches = subject.loaded, subject.data, subject.batches
    recovery, model = settings.recover, loaded.model
    seen = calibration(data, samples=settings.calibration, seed=settings.seed)
    about = f"{settings.model} on {settings.data}, batches of {settings.batch_size}, calibrated on "
    return Task(
        model=model,
        example_inputs=loaded.example_inputs,
        train_data=batches.train,
        validate=batches.validate,
        recovery=replace(recovery, seed=settings.seed) if recovery.seed == 0 else recovery,
        loss_fn=loss_fn,
        calibration=on_device(seen, next(model.parameters()).device),
        costs=settings.costs,
        measured=not settings.predicted,
        device=Device(settings.latency_batch, settings.threads, settings.runtime),
        constraints=settings.select,
        cache=cache_folder(),
        early=Early(margin=settings.margin) if settings.early else None,
        about=about + str(settings.calibration),
    )


def _told(trial: Trial, found: Found, trials: int) -> str:
    costs = [f"{name} {percent(share)}" for name, share in trial.costs.items()]
    metric = [] if trial.metric is None else [f"accuracy {percent(trial.metric)}"]
    what = ", ".join([trial.state, *metric, *costs, trial.choice.words])
    why = f" ({trial.reason})" if trial.reason else ""
    return f"trial {trial.number + 1} of {trials}: {what}{why}; front: {_short(found)}"


def _short(found: Found) -> str:
    """The front in a line.

    For example "98.1 % at 60.2 %, 97.4 % at 31.0 %".
    """
    cost = found.costs[0]
    points = [f"{percent(each.metric)} at {percent(each.costs[cost])}" for each in found.front]
    return ", ".join(points) or "empty"


def _tested(found: Found, loaded: LoadedModel, batches: Batches) -> dict[int, float]:
    """Accuracy on images that the search has not seen, of the models of the front and the line."""
    device = next(loaded.model.parameters()).device
    tested = {}
    for trial in {each.number: each for each in (*found.front, *found.line)}.values():
        path = found.model(trial)
        if path is not None:
            model = load(path, lambda: copied(loaded.model)).to(device)
            tested[trial.number] = batches.measure(model)
    return tested


def _write(searched: Searched) -> None:
    found = searched.found
    folder: Path = found.folder.path
    write_text(folder / "front.json", json.dumps(searched.to_json(), indent=1) + "\n")
    write_text(folder / "front.csv", found.to_csv())
    write_text(folder / "front.md", found.to_markdown())
    if found.complete:
        write_text(folder / "front.svg", standalone(front_chart(found)))
