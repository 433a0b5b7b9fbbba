"""Optuna's part of a search: what to try next, from what came of the trials before.

The only file that imports it. The study lies in a journal file that several processes append to;
they do so under the search's own lock, which the system takes back from a process that dies, so
the journal needs none of its own. The sampler is seeded anew for each trial, by the search's seed
and the trial's number: so a search that was stopped goes on as if it had not been, and no two
processes suggest the same.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState

from secateur.search.pareto import Goal
from secateur.search.study_space import Options, Range

NAME = "secateur"
STATES = {"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


class Study:
    """The trials of a search as Optuna has them. Call everything under the search's lock."""

    def __init__(
        self, path: Path, *, goals: Sequence[Goal], options: Mapping[str, Options], seed: int
    ) -> None:
        self._seed = seed
        self._space = {name: _distribution(given) for name, given in options.items()}
        _mend(path)
        with _quiet():
            self._study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(path), lock_obj=_Held())),
                study_name=NAME,
                directions=["maximize" if goal.maximise else "minimize" for goal in goals],
                load_if_exists=True,
            )

    def plant(self, first: Sequence[Mapping[str, Any]]) -> None:
        """Choices to try first, where that was not said before, or not to the end."""
        for chosen in first[len(self._trials()) :]:
            with _quiet():
                self._study.enqueue_trial(dict(chosen))

    def ask(self) -> tuple[int, dict[str, Any]]:
        """The number of a new trial, and what it shall choose."""
        number = len(self._trials())
        mixed = int(np.random.SeedSequence([self._seed, number]).generate_state(1)[0])
        with _quiet():
            self._study.sampler = optuna.samplers.TPESampler(seed=mixed, constant_liar=True)
            trial = self._study.ask(fixed_distributions=self._space)
        return trial.number, dict(trial.params)

    def running(self) -> tuple[tuple[int, dict[str, Any] | None], ...]:
        """Trials that were asked for and not told; None for one whose choice was not written."""
        running = self._trials((TrialState.RUNNING,))
        return tuple(
            (each.number, dict(each.params) if each.params.keys() == self._space.keys() else None)
            for each in running
        )

    def begun(self) -> int:
        """How many trials were asked for, ended or not."""
        return sum(each.state != TrialState.WAITING for each in self._trials())

    def tell(self, number: int, *, state: str, values: Sequence[float] | None = None) -> None:
        """What came of a trial."""
        with _quiet():
            if values is None:
                self._study.tell(number, state=STATES[state])
            else:
                self._study.tell(number, [float(value) for value in values])

    def _trials(self, states: tuple[TrialState, ...] | None = None) -> list[Any]:
        with _quiet():
            return list(self._study.get_trials(deepcopy=False, states=states))


class _Held:
    """The lock that the journal asks for: the search's own is held already."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        return None


def _distribution(options: Options) -> Any:
    if isinstance(options, Range):
        return FloatDistribution(options.low, options.high, log=options.log)
    return CategoricalDistribution(options)


def _mend(path: Path) -> None:
    """Drop the half line that a process which died while writing left at the journal's end."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's own lines, and its warnings that a feature may change."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
