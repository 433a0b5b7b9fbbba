"""Hands out the trials of a search to the processes that share it, and takes what came of them.

Every exchange happens under one lock of the folder. A trial whose process is gone is handed out
again before any new one, and goes on from its newest checkpoint.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from secateur.core.errors import TrainError
from secateur.search.study_folder import SearchFolder
from secateur.search.study_found import Found, read_found
from secateur.search.study_space import Space
from secateur.search.trial import Trial, goals_of
from secateur.search.trial_run import Job, Outcome, died
from secateur.search.trial_task import Task
from secateur.storage import save

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from secateur.search.study_optuna import Study

MOST_STARTS = 3
"""So often may the process of a trial die before the trial counts as failed."""
FIRST_FAILED = 5
"""After so many trials of which none came to an end something is wrong with the search itself."""


@dataclass
class Desk:
    """What one process of a search works at. lock: of the trial that it runs."""

    folder: SearchFolder
    task: Task
    space: Space
    seed: int
    study: Study = field(init=False)
    lock: BaseFileLock | None = None

    def __post_init__(self) -> None:
        from secateur.search.study_optuna import Study

        lr = self.task.recovery.lr
        with self.folder.lock("search"):
            self.study = Study(
                self.folder.journal,
                goals=goals_of(self.task.costs),
                options=self.space.options(lr),
                seed=self.seed,
            )
            self._sweep()
            shares = self.space.line_shares()
            self.study.plant([self.space.plain(share, lr) for share in shares])

    def next(self, trials: int) -> Job | None:
        """A trial that nobody runs: one that was left behind, or a new one up to so many.

        Raises: TrainError when none of the first trials came to an end.
        """
        with self.folder.lock("search"):
            self._check_hope()
            left = self._left_behind()
            if left is not None:
                return left
            if self.study.begun() >= trials:
                return None
            number, chosen = self.study.ask()
            self._take(number)
            return self._job(number, chosen)

    def end(self, job: Job, outcome: Outcome, *, keep_model: bool) -> Found:
        """Keep what came of a trial, and its model if it is of the front or the line."""
        if keep_model and outcome.model is not None and self._is_kept(outcome.trial):
            example = self.task.example_inputs
            save(outcome.model, self.folder.model(job.number), plan=outcome.plan, example=example)
        with self.folder.lock("search"):
            self._tell(outcome.trial)
            found = read_found(self.folder)
            self._forget_models(found)
        return found

    def put_back(self, job: Job) -> None:
        """An orderly stop: the trial goes on in a later call."""
        self.folder.count_start(job.number, by=-1)
        self._leave()

    def _sweep(self) -> None:
        """Remove what is left of trials whose process died after telling what came of them."""
        running = {number for number, _ in self.study.running()}
        for path in (self.folder.path / "work").glob("*"):
            if int(path.name) not in running:
                self.folder.clear(int(path.name))

    def _left_behind(self) -> Job | None:
        """A trial that is running by the journal and that no process holds."""
        for number, chosen in self.study.running():
            if not self._take(number):
                continue
            written = self.folder.trial(number)
            if written.exists():  # its process died between writing and telling
                self._tell(Trial.from_json(written.read_text(encoding="utf-8")))
            elif chosen is None:  # or before it knew what to do
                self.study.tell(number, state="failed")
                self._leave()
            elif self.folder.starts(number) > MOST_STARTS:
                self._tell(died(self._described(number, chosen), MOST_STARTS))
            else:
                return self._job(number, chosen)
        return None

    def _job(self, number: int, chosen: Mapping[str, Any]) -> Job:
        job = self._described(number, chosen)
        self.folder.count_start(number, by=1)
        return job

    def _described(self, number: int, chosen: Mapping[str, Any]) -> Job:
        lr = self.task.recovery.lr
        choice = self.space.choice(chosen, lr)
        line = self.space.is_plain(choice, lr)
        return Job(number, choice, line, self.folder.work(number), self.folder.plan(number))

    def _take(self, number: int) -> bool:
        """Hold a trial's lock; False where another process does."""
        from filelock import Timeout

        lock = self.folder.lock(f"trial-{number:04d}")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            self.lock = lock
            return True
        return False

    def _leave(self) -> None:
        if self.lock is not None:
            self.lock.release()
            self.lock = None

    def _tell(self, trial: Trial) -> None:
        self.folder.write(trial)
        values = trial.point if trial.state == "complete" else None
        self.study.tell(trial.number, state=trial.state, values=values)
        self.folder.clear(trial.number)
        self._leave()

    def _is_kept(self, trial: Trial) -> bool:
        found = read_found(self.folder)
        with_it = Found(
            self.folder, found.costs, (*found.trials, trial), found.dense, found.amounts
        )
        return trial.line or trial in with_it.front

    def _forget_models(self, found: Found) -> None:
        kept = {self.folder.model(trial.number) for trial in (*found.front, *found.line)}
        running = {self.folder.model(number) for number, _ in self.study.running()}
        for path in (self.folder.path / "models").glob("*"):
            if path not in kept | running and path.name.isdigit():
                shutil.rmtree(path, ignore_errors=True)

    def _check_hope(self) -> None:
        finished = self.folder.finished()
        if len(finished) >= FIRST_FAILED and all(trial.state == "failed" for trial in finished):
            raise TrainError(
                f"none of {len(finished)} trials came to an end; the last one: "
                f"{finished[-1].reason}"
            )
