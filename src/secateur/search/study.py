"""The search for the front: which criterion, allocation, schedule and recovery at which cost.

Trials are suggested by Optuna's multi-objective sampler, beginning with a line of plain ones. All
lies in a folder: the same call goes on where an earlier one stopped, however it stopped, and calls
of several processes share the search.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from secateur.core.atomic import write_text
from secateur.core.fingerprint import fingerprint, weights_digest
from secateur.cost.batch import device_of
from secateur.cost.latency import hardware_name
from secateur.search.study_desk import Desk
from secateur.search.study_folder import SearchFolder, open_folder
from secateur.search.study_found import Found, read_found
from secateur.search.study_space import Space
from secateur.search.trial import Trial
from secateur.search.trial_ground import Ground
from secateur.search.trial_run import Job, run_trial
from secateur.search.trial_task import LATENCY, Task
from secateur.search.trial_watch import OutOfTime, Watch

OnTrial = Callable[[Trial, Found], None]


@dataclass(frozen=True, slots=True)
class Limits:
    """trials: of the search in all, whoever ran them. time_limit_s: of this call; a trial that is
    under way then stops, and goes on in the next call."""

    trials: int = 40
    time_limit_s: float | None = None

    def __post_init__(self) -> None:
        if self.trials < 1 or (self.time_limit_s is not None and self.time_limit_s <= 0):
            raise ValueError(
                f"trials={self.trials}, time_limit_s={self.time_limit_s}: at least 1, and positive"
            )


def search_front(
    task: Task,
    folder: str | Path,
    *,
    space: Space | None = None,
    limits: Limits | None = None,
    seed: int = 0,
    keep_models: bool = True,
    on_trial: OnTrial | None = None,
) -> Found:
    """What the search in a folder has found when it is at its limit of trials or time.

    In one process the same seed gives the same trials, as far as measured times do. A trial that
    fails, for example because its budget cannot be met, is kept with its reason. on_trial: called
    after each trial of this process, with all that was found until then.

    Raises: ValueError for a wrong option, or without Optuna (``pip install 'secateur[search]'``);
    StorageError for a folder of something else, or of a search with other settings; TrainError when
    none of the first trials came to an end.
    """
    space, limits = space or Space(), limits or Limits()
    _check_installed()
    _check_names(task, space)
    until = None if limits.time_limit_s is None else time.monotonic() + limits.time_limit_s
    place = open_folder(folder, _decisive(task, space, seed))
    cache = task.cache or place.timings
    ground = Ground(task, seed=seed, cache=cache, alone=place.lock("measure"))
    _write_dense(place, ground)
    desk = Desk(place, task, space, seed)
    while until is None or time.monotonic() < until:
        job = desk.next(limits.trials)
        if job is None:
            break
        try:
            outcome = run_trial(job, ground, _watch(job, ground, place, until), space=space)
        except OutOfTime:
            desk.put_back(job)
            break
        except KeyboardInterrupt:
            desk.put_back(job)
            raise
        found = desk.end(job, outcome, keep_model=keep_models)
        if on_trial is not None:
            on_trial(outcome.trial, found)
    return read_found(place)


def _watch(job: Job, ground: Ground, place: SearchFolder, until: float | None) -> Watch:
    return Watch(
        task=ground.task,
        metric=ground.metric,
        place=job.folder / "early.json",
        finished=place.finished,
        deadline=until,
        spared=job.line,
    )


def _check_installed() -> None:
    """Before anything is measured. Raises: ValueError."""
    try:
        import filelock  # noqa: F401

        import secateur.search.study_optuna  # noqa: F401
    except ImportError:
        raise ValueError(
            "a search needs optuna and filelock: pip install 'secateur[search]'"
        ) from None


def _check_names(task: Task, space: Space) -> None:
    for name in space.precisions:
        if name not in task.precisions:
            raise ValueError(
                f"precision {name!r} is none of the task's: {', '.join(task.precisions)}"
            )


def _write_dense(place: SearchFolder, ground: Ground) -> None:
    with place.lock("dense"):
        if not place.dense.exists():
            write_text(place.dense, json.dumps(ground.dense(), indent=1) + "\n")


def _decisive(task: Task, space: Space, seed: int) -> dict[str, Any]:
    """What decides the figures of trials, as JSON values, so that no two searches are mixed."""
    return {
        "about": task.about,
        "model": fingerprint(task.model),
        "weights": weights_digest(task.model)[:16],
        "costs": list(task.costs),
        "measured": task.measured,
        "device": {**asdict(task.device), **_machine(task)},
        "recovery": task.recovery.decisive(),
        "steps": task.steps,
        "constraints": task.constraints.to_json(),
        "early": None if task.early is None else asdict(task.early),
        "space": asdict(space),
        "seed": seed,
    }


def _machine(task: Task) -> dict[str, Any]:
    """Where latencies are measured: shares of one machine say nothing of another."""
    if LATENCY not in task.costs:
        return {}
    threads = task.device.threads or torch.get_num_threads()
    return {"threads": threads, "hardware": hardware_name(device_of(task.model))}
