"""A run on its engine: here, in processes that are started for it, or as one of those.

Processes that are started read the settings from a file and run `worker`; what went wrong on one
of them comes back as the same error that it would have been in one process.
"""

from __future__ import annotations

import importlib
import json
import os
import tempfile
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from secateur.cli.boundary import raised_by_us
from secateur.cli.engine_settings import LAUNCHERS, RAY, SINGLE, Engines
from secateur.core import errors
from secateur.core.atomic import write_text
from secateur.core.errors import EngineError, SecateurError
from secateur.core.lookup import find
from secateur.core.world import ALONE, World
from secateur.engines.kinds import parse_kind

SETTINGS, OUTCOME = "settings.json", "outcome.json"
WORKER = "secateur.cli.worker"


def is_rank(environment: Mapping[str, str]) -> bool:
    """Whether a process was started as one of several."""
    return "RANK" in environment or int(environment.get("SLURM_NTASKS", "1")) > 1


def starts_processes(settings: Engines, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is to start those that do the work."""
    return settings.engine != SINGLE and not is_rank(environment)


@contextmanager
def world_of(settings: Engines, *, device: str | None) -> Iterator[World]:
    """The world that this process is a rank of; of one where the engine is single.

    Raises: EngineError.
    """
    if settings.engine == SINGLE:
        yield ALONE
        return
    from secateur.engines.joining import joined, ranks_of

    ranks = ranks_of(os.environ)
    assert ranks is not None, "starts_processes was asked"
    gpu = device is not None and device.startswith("cuda")
    with joined(ranks, timeout_s=settings.processes.timeout, gpu=gpu) as world:
        yield world


def launch(settings: Any) -> None:
    """Run a command's settings in the processes of its engine.

    Raises: what one process would have raised; EngineError when a rank was lost.
    """
    launcher = find(LAUNCHERS, settings.engine, kind="engine")
    nproc, restarts = settings.nproc or default_count(settings), settings.processes.restarts
    parse_kind(settings.parallel, ranks=nproc)  # before anything is started
    gpu, address = needs_gpu(settings), settings.address
    near = settings.out if settings.engine == RAY else None
    with handed_over(settings, near=near) as folder:
        launcher.launch(WORKER, folder, nproc=nproc, restarts=restarts, gpu=gpu, address=address)


@contextmanager
def handed_over(settings: Any, *, near: Path | None = None) -> Iterator[str]:
    """A folder with the settings, for the processes that the block starts.

    near: beside this one, which processes on other machines see too.
    Raises: what one of them told when it could not go on.
    """
    from secateur.engines.launchers import KilledError

    parent = None if near is None else near.resolve().parent
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="secateur-", dir=parent) as name:
        folder = Path(name)
        body = {"settings": asdict(settings), "class": type(settings).__qualname__}
        body["module"] = type(settings).__module__
        write_text(folder / SETTINGS, json.dumps(body, default=str))
        try:
            yield name
        except KilledError:
            raise
        except EngineError:
            _raise_told(folder)
            raise
        _raise_told(folder)


def needs_gpu(settings: Any) -> bool:
    """Whether each process is to have a GPU."""
    return settings.device is not None and settings.device.startswith("cuda")


def settings_in(folder: Path) -> Any:
    """The settings that `launch` wrote."""
    from pydantic import TypeAdapter

    body = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    kind = getattr(importlib.import_module(body["module"]), body["class"])
    return TypeAdapter(kind).validate_python(body["settings"])


def tell(error: BaseException, folder: Path) -> None:
    """Write an error down, so that `launch` raises it."""
    body: dict[str, Any] = {
        "error": type(error).__qualname__,
        "message": str(error),
        "rank": os.environ.get("RANK"),
    }
    if isinstance(error, OSError):
        body["errno"], body["filename"] = error.errno, error.filename
    write_text(folder / OUTCOME, json.dumps(body))


def tell_raised(error: Exception, folder: Path) -> None:
    """As `tell`; a bug, which is no error of ours, is shown with its traceback besides."""
    ours = isinstance(error, SecateurError | OSError)
    if not ours and not (isinstance(error, ValueError) and raised_by_us(error.__traceback__)):
        traceback.print_exception(error)
    tell(error, folder)


def _raise_told(folder: Path) -> None:
    if not (folder / OUTCOME).exists():
        return
    body = json.loads((folder / OUTCOME).read_text(encoding="utf-8"))
    name, message = body["error"], body["message"]
    if "errno" in body and body["filename"] is not None:
        raise OSError(body["errno"], os.strerror(body["errno"]), body["filename"])
    if name == "ValueError":
        raise ValueError(message)
    ours = getattr(errors, name, None)
    if ours is not None:
        raise ours(message)
    if name == "LostError":
        raise EngineError(message)
    who = "a worker" if body["rank"] is None else f"rank {body['rank']}"
    raise EngineError(f"{who} failed by {name}: {message}; its traceback is above")


def default_count(settings: Any) -> int:
    """As many as there are GPUs, or cores."""
    import torch

    if needs_gpu(settings):
        return max(1, torch.cuda.device_count())
    return len(os.sched_getaffinity(0))
