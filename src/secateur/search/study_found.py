"""What a search found so far: its trials, the front among them, and the line beside it."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from secateur.core.errors import StorageError
from secateur.search.pareto import Goal, beaten, dominates, front, hypervolume
from secateur.search.study_folder import SearchFolder
from secateur.search.trial import Trial, goals_of


@dataclass(frozen=True)
class Found:
    """trials: those that ended. dense: the dense model's metric. amounts: its costs in their own
    units."""

    folder: SearchFolder
    costs: tuple[str, ...]
    trials: tuple[Trial, ...]
    dense: float
    amounts: Mapping[str, float]

    @property
    def goals(self) -> tuple[Goal, ...]:
        """The metric and the costs."""
        return goals_of(self.costs)

    @property
    def complete(self) -> tuple[Trial, ...]:
        """The trials with a point."""
        return tuple(trial for trial in self.trials if trial.state == "complete")

    @property
    def front(self) -> tuple[Trial, ...]:
        """The trials that no other beats, by falling metric."""
        complete = self.complete
        return tuple(complete[k] for k in front([each.point for each in complete], self.goals))

    @property
    def line(self) -> tuple[Trial, ...]:
        """The plain trials, as they came."""
        return tuple(trial for trial in self.complete if trial.line)

    @property
    def found(self) -> tuple[Trial, ...]:
        """The front without what stands on the line."""
        return tuple(trial for trial in self.front if not trial.line)

    @property
    def dominates(self) -> bool:
        """Whether the front beats every point of the line."""
        return dominates(_points(self.found), _points(self.line), self.goals)

    @property
    def beaten(self) -> int:
        """How many points of the line the front beats."""
        return len(beaten(_points(self.line), by=_points(self.front), goals=self.goals))

    def volume(self, trials: Sequence[Trial]) -> float:
        """The hypervolume of trials beside a model of metric 0 at the dense one's costs."""
        return hypervolume(_points(trials), (0.0, *(1.0 for _ in self.costs)), self.goals)

    def plan(self, trial: Trial) -> Path:
        """Where a trial's plan lies."""
        return self.folder.plan(trial.number)

    def model(self, trial: Trial) -> Path | None:
        """Where the model of a trial of the front lies, None where models were not kept."""
        path = self.folder.model(trial.number)
        return path if path.exists() else None

    @property
    def summary(self) -> str:
        """How many trials there are, and how they ended."""
        states = [trial.state for trial in self.trials]
        ends = [f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed")]
        return f"{len(states)} trials ({', '.join(e for e in ends if e[0] != '0')})"

    def to_json(self) -> dict[str, Any]:
        """The front and the line with all that is known of them, and how every trial ended."""
        return {
            "costs": list(self.costs),
            "dense": {"metric": self.dense, "amounts": dict(self.amounts)},
            "front": [self._entry(trial) for trial in self.front],
            "line": [self._entry(trial) for trial in self.line],
            "dominates_line": self.dominates,
            "line_points_beaten": self.beaten,
            "hypervolume": self.volume(self.front),
            "hypervolume_of_line": self.volume(self.line),
            "trials": [
                {"number": t.number, "state": t.state, "reason": t.reason} for t in self.trials
            ],
        }

    def to_csv(self) -> str:
        """Every trial a line, the front's marked."""
        numbers = {trial.number for trial in self.front}
        chosen = list(asdict(self.trials[0].choice)) if self.trials else []
        figures = [*self.costs, *(f"{name}_amount" for name in self.costs)]
        names = ["number", "state", "front", "line", "metric", *figures, *chosen, "reason"]
        text = io.StringIO()
        table = csv.writer(text, lineterminator="\n")
        table.writerow(names)
        for trial in self.trials:
            costs = [*(trial.costs.get(n, "") for n in self.costs)]
            costs += [*(trial.amounts.get(n, "") for n in self.costs)]
            head = [trial.number, trial.state, int(trial.number in numbers), int(trial.line)]
            metric = "" if trial.metric is None else trial.metric
            table.writerow([*head, metric, *costs, *asdict(trial.choice).values(), trial.reason])
        return text.getvalue()

    def to_markdown(self) -> str:
        """The front as a table."""
        titles = ["trial", "metric", *self.costs, "how"]
        rows = [titles, ["---"] * len(titles), *(self._row(trial) for trial in self.front)]
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)

    def _row(self, trial: Trial) -> list[str]:
        shares = [f"{100 * trial.costs[name]:.1f} %" for name in self.costs]
        assert trial.metric is not None
        how = trial.choice.words + (" (the line)" if trial.line else "")
        return [str(trial.number), f"{trial.metric:.4f}", *shares, how]

    def _entry(self, trial: Trial) -> dict[str, Any]:
        model = self.model(trial)
        return {
            **trial.to_json(),
            "plan_file": str(self.plan(trial).relative_to(self.folder.path)),
            "model": None if model is None else str(model.relative_to(self.folder.path)),
        }


def read_found(folder: str | Path | SearchFolder) -> Found:
    """What lies in the folder of a search, running or over. Raises: StorageError."""
    place = folder if isinstance(folder, SearchFolder) else SearchFolder(Path(folder))
    try:
        settings = json.loads(place.settings.read_text(encoding="utf-8"))["settings"]
        dense = json.loads(place.dense.read_text(encoding="utf-8"))
        costs, metric, amounts = tuple(settings["costs"]), dense["metric"], dense["amounts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(
            f"{place.path} holds no search that has begun ({type(error).__name__}: {error})"
        ) from error
    return Found(place, costs, place.finished(), float(metric), amounts)


def _points(trials: Sequence[Trial]) -> list[tuple[float, ...]]:
    return [trial.point for trial in trials]
