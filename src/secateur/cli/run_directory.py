"""The run directory: every stage's value in a file of its own, so that a stopped run goes on.

A stage is finished when its file is there, because files appear whole or not at all. `run.json`
holds the settings that the run was started with; the same directory with other settings is refused,
since its files would belong to two different runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.core.atomic import replacing, write_text
from secateur.core.errors import StorageError
from secateur.core.plan import Scores

V = TypeVar("V")
FORMAT = 1


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The files of one run, in the order in which they are written."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "run.json"

    @property
    def graph(self) -> Path:
        return self.path / "graph.json"

    @property
    def scores(self) -> Path:
        return self.path / "scores.safetensors"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def proof(self) -> Path:
        return self.path / "proof.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def steps(self) -> Path:
        return self.path / "steps.json"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"


def open_run(path: Path, settings: Mapping[str, Any]) -> RunDirectory:
    """A new run directory, or the one that a run with the same settings left behind.

    Raises: StorageError when the directory holds something else, or a run with other settings
    that got as far as a plan or a checkpoint; it names what differs.
    """
    directory = RunDirectory(path)
    if directory.settings.is_file():
        if directory.plan.exists() or directory.checkpoints.exists():
            _check_same(directory, settings)
        else:  # nothing that took long hangs on the old settings
            directory.scores.unlink(missing_ok=True)
            _write_settings(directory, settings)
        return directory
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(
            f"{path} holds something that is not a run of secateur; choose another --out"
        )
    _write_settings(directory, settings)
    return directory


def once(
    path: Path, *, make: Callable[[], V], write: Callable[[V], None], read: Callable[[], V]
) -> V:
    """What the stage made: read from its file if an earlier run finished it, else made now."""
    if path.exists():
        return read()
    value = make()
    write(value)
    return value


def write_scores(path: Path, scores: Scores) -> None:
    """Scores as safetensors, one tensor a group."""
    with replacing(path) as temporary:
        save_file({id: values.contiguous() for id, values in scores.items()}, temporary)


def read_scores(path: Path) -> dict[str, Tensor]:
    """Inverse of `write_scores`."""
    return dict(load_file(path))


def _write_settings(directory: RunDirectory, settings: Mapping[str, Any]) -> None:
    body = {"format": FORMAT, "settings": dict(settings)}
    write_text(directory.settings, json.dumps(body, indent=1) + "\n")


def _check_same(directory: RunDirectory, settings: Mapping[str, Any]) -> None:
    try:
        before = json.loads(directory.settings.read_text(encoding="utf-8"))["settings"]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{directory.settings} is not readable; choose another --out") from error
    old, new = _flat(before), _flat(settings)
    different = [key for key in {**old, **new} if old.get(key) != new.get(key)]
    if different:
        listed = ", ".join(
            f"{key} was {old.get(key)!r} and is now {new.get(key)!r}" for key in different
        )
        raise StorageError(
            f"{directory.path} holds a run with other settings: {listed}. Choose another --out, "
            "or remove the directory to start anew"
        )


def _flat(settings: Mapping[str, Any], *, before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, before=f"{before}{key}.")
        else:
            # as JSON gives it back
            flat[f"{before}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat
