"""The run directory: every stage's values in files of their own, so that a stopped run goes on.

A stage is finished when its `model` folder is there, because files appear whole or not at all. The
only stage of a run works in the run directory itself, each of several in a folder under `stages/`.
`run.json` holds the settings that the run was started with; other settings are refused, since the
files would belong to two different runs, unless it is asked to do the changed stages again.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.cli.changes import Change, changes, told
from secateur.core.atomic import replacing, write_text
from secateur.core.errors import StorageError
from secateur.core.plan import Scores
from secateur.core.world import ALONE, World

V = TypeVar("V")
FORMAT = 2
STAGES, RANDOM = "stages", "random"


@dataclass(frozen=True, slots=True)
class StageFolder:
    """The files of one stage, in the order in which they are written."""

    path: Path

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
    def cuts(self) -> Path:
        return self.path / "cuts.jsonl"

    @property
    def steps(self) -> Path:
        return self.path / "steps.json"

    @property
    def masks(self) -> Path:
        return self.path / "masks.safetensors"

    @property
    def model(self) -> Path:
        return self.path / "model"

    @property
    def row(self) -> Path:
        return self.path / "stage.json"

    def stage(self, number: int, name: str, *, of: int) -> StageFolder:
        """The folder of stage `number` (from 1) of a run in this one."""
        if of == 1:
            return StageFolder(self.path)
        return StageFolder(self.path / STAGES / f"{number}-{name}")

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them."""
        return (
            *(self.scores, self.plan, self.proof, self.checkpoints, self.log, self.cuts),
            *(self.steps, self.masks, self.model, self.row),
        )


@dataclass(frozen=True, slots=True)
class RunDirectory(StageFolder):
    """The files of a whole run; those of a stage are what all stages together came to."""

    @property
    def settings(self) -> Path:
        return self.path / "run.json"

    @property
    def graph(self) -> Path:
        return self.path / "graph.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def random(self) -> StageFolder:
        """Of the baseline that chose at random."""
        return StageFolder(self.path / RANDOM)

    @property
    def took_long(self) -> bool:
        """Whether something is there that was not made in a moment."""
        folders = [self.path, *self.path.glob(f"{STAGES}/*")]
        long = (self.plan.name, self.checkpoints.name, self.masks.name, self.model.name)
        return any((folder / name).exists() for folder in folders for name in long)


def open_run(path: Path, settings: Mapping[str, Any], *, redo: bool = False) -> RunDirectory:
    """A new run directory, or the one that a run with the same settings left behind.

    redo: where the settings differ, remove what the difference touches, and every stage after it.
    Raises: StorageError when the directory holds something else, or a run with other settings
    that got as far as a plan or a checkpoint; it names what differs and what to type.
    """
    directory = RunDirectory(path)
    if directory.settings.is_file():
        _reopen(directory, settings, redo=redo)
        return directory
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise StorageError(
            f"{path} holds something that is not a run of secateur; choose another --out"
        )
    _write_settings(directory, settings)
    return directory


def once(
    path: Path,
    *,
    make: Callable[[], V],
    write: Callable[[V], None],
    read: Callable[[], V],
    world: World = ALONE,
    alone: bool = False,
) -> V:
    """What the stage made: read from its file if an earlier run finished it, else made now.

    Rank 0 looks whether it is there; all ranks make it together, and rank 0 writes it. alone: rank
    0 makes it, however long that takes, and the others read it.
    """
    if world.first(path.exists(), what=f"whether {path.name} is there"):
        return read()
    if alone and world.size > 1:
        solo(world, lambda: write(make()), what=path.name)
        return read()
    value = make()
    by_first(world, lambda: write(value), what=f"the writing of {path.name}")
    return value


def solo(world: World, work: Callable[[], V], *, what: str) -> V | None:
    """What rank 0 makes of it, however long that takes; None on the others."""
    if world.size == 1:
        return work()
    from secateur.engines.solo import on_first

    return on_first(world, work, what=what)


def by_first(world: World, work: Callable[[], object], *, what: str) -> None:
    """Let rank 0 do what changes files; the others go on when it is done."""
    if world.rank == 0:
        work()
    world.wait(what=what)


def write_scores(path: Path, scores: Scores) -> None:
    """Scores as safetensors, one tensor a group."""
    with replacing(path) as temporary:
        save_file({id: values.contiguous() for id, values in scores.items()}, temporary)


def read_scores(path: Path) -> dict[str, Tensor]:
    """Inverse of `write_scores`; none where none were written."""
    return dict(load_file(path)) if path.exists() else {}


def _reopen(directory: RunDirectory, settings: Mapping[str, Any], *, redo: bool) -> None:
    if not directory.took_long:  # nothing hangs on the settings before, readable or not
        if not _are_settings_of(directory, settings):
            _remove_from(directory, 1)
            _write_settings(directory, settings)
        return
    change = changes(_settings_of(directory), settings)
    if change is None:
        return
    if not redo:
        raise StorageError(
            f"{directory.path} holds a run with other settings: {told(change)}. "
            f"{_what_to_type(change)}"
        )
    _remove_from(directory, change.first)
    _write_settings(directory, settings)


def _are_settings_of(directory: RunDirectory, settings: Mapping[str, Any]) -> bool:
    try:
        return changes(_settings_of(directory), settings) is None
    except StorageError:
        return False


def _what_to_type(change: Change) -> str:
    kept, again = change.kept, change.again
    keeps = f"keeps {' and '.join(kept)} and " if kept else ""
    does = " and ".join(again) if again else "the measurement"
    return f"The same command with --redo {keeps}does {does} again; or choose another --out"


def _remove_from(directory: RunDirectory, first: int) -> None:
    """Remove the stages from number `first` on, and what they came to."""
    for base in (directory, directory.random):
        numbered = {path: path.name.partition("-")[0] for path in base.path.glob(f"{STAGES}/*")}
        later = [path for path, number in numbered.items() if int(number) >= first]
        own = base.files if first == 1 or numbered else ()
        for path in (*later, *own):
            _remove(path)
    _remove(directory.result)
    _remove(directory.report)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_settings(directory: RunDirectory, settings: Mapping[str, Any]) -> None:
    body = {"format": FORMAT, "settings": dict(settings)}
    write_text(directory.settings, json.dumps(body, indent=1) + "\n")


def _settings_of(directory: RunDirectory) -> dict[str, Any]:
    try:
        body = json.loads(directory.settings.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, not {FORMAT}")
        return dict(body["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{directory.settings} is not readable; choose another --out") from error
