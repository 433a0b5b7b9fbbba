"""The folder of a search: who works in it, and what is finished.

    search.json        the settings that it was begun with
    dense.json         metric and costs of the dense model
    journal.log        Optuna's
    plans/0007.json    the plan of a trial
    trials/0007.json   what came of it
    work/0007/         what a trial needs to go on; gone when it has ended
    models/0007/       the models of the front and of the line, where they are kept

Locks are the system's own on open files: whatever way a process dies, its locks are free again, so
a trial that is running by the journal and has no lock has no process either.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur.core.atomic import write_text
from secateur.core.errors import StorageError
from secateur.search.trial import Trial

if TYPE_CHECKING:
    from filelock import BaseFileLock

FORMAT = 1


@dataclass(frozen=True, slots=True)
class SearchFolder:
    """Where the files of a search lie."""

    path: Path

    @property
    def settings(self) -> Path:
        return self.path / "search.json"

    @property
    def dense(self) -> Path:
        return self.path / "dense.json"

    @property
    def journal(self) -> Path:
        return self.path / "journal.log"

    @property
    def timings(self) -> Path:
        return self.path / "timings"

    @property
    def locks(self) -> Path:
        return self.path / "locks"

    def plan(self, number: int) -> Path:
        return self.path / "plans" / f"{number:04d}.json"

    def trial(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04d}.json"

    def work(self, number: int) -> Path:
        return self.path / "work" / f"{number:04d}"

    def model(self, number: int) -> Path:
        return self.path / "models" / f"{number:04d}"

    def lock(self, name: str) -> BaseFileLock:
        """A lock that one process holds at a time."""
        from filelock import FileLock

        place = self.locks / f"{name}.lock"
        place.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(place)

    def finished(self) -> tuple[Trial, ...]:
        """The trials that ended, by number. Raises: StorageError."""
        paths = sorted(self.path.glob("trials/*.json"))
        return tuple(Trial.from_json(path.read_text(encoding="utf-8")) for path in paths)

    def write(self, trial: Trial) -> None:
        """Keep what came of a trial."""
        write_text(self.trial(trial.number), json.dumps(trial.to_json(), indent=1) + "\n")

    def starts(self, number: int) -> int:
        """How often a process began with a trial and did not say why it stopped."""
        path = self.work(number) / "starts"
        return int(path.read_text(encoding="utf-8")) if path.exists() else 0

    def count_start(self, number: int, *, by: int) -> None:
        """One start more, or one less for an orderly stop."""
        write_text(self.work(number) / "starts", str(max(0, self.starts(number) + by)))

    def clear(self, number: int) -> None:
        """Remove what only a running trial needs."""
        shutil.rmtree(self.work(number), ignore_errors=True)


def open_folder(path: str | Path, settings: Mapping[str, Any]) -> SearchFolder:
    """The folder of a new search, or of one with the same settings.

    Raises: StorageError for a folder that holds something else, or a search with other settings;
    it names what differs.
    """
    folder = SearchFolder(Path(path))
    foreign = not folder.settings.exists() and _holds_others(folder)
    if foreign and not folder.locks.exists():  # where they are, another process may just begin
        raise StorageError(_foreign(folder))
    with folder.lock("search"):
        if not folder.settings.exists():
            if _holds_others(folder):
                raise StorageError(_foreign(folder))
            body = {"format": FORMAT, "settings": dict(settings)}
            write_text(folder.settings, json.dumps(body, indent=1) + "\n")
            return folder
    before, now = _settings_of(folder), json.loads(json.dumps(dict(settings)))
    differing = sorted(key for key in {*before, *now} if before.get(key) != now.get(key))
    if differing:
        changed = "; ".join(
            f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in differing
        )
        raise StorageError(
            f"{path} holds a search with other settings: {changed}. Search with those, or choose "
            "another folder"
        )
    return folder


def _holds_others(folder: SearchFolder) -> bool:
    """Whether there is anything beside the locks."""
    path = folder.path
    return path.exists() and (not path.is_dir() or any(e != folder.locks for e in path.iterdir()))


def _foreign(folder: SearchFolder) -> str:
    return f"{folder.path} holds something that is no search; choose another folder"


def _settings_of(folder: SearchFolder) -> dict[str, Any]:
    try:
        body = json.loads(folder.settings.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise ValueError(f"its format is {body['format']}, not {FORMAT}")
        return dict(body["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{folder.settings} is not readable ({error}); choose another folder"
        ) from error
