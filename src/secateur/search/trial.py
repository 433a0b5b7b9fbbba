"""One finished trial of a search: what was chosen, what came of it, and why it ended if early.

Costs are shares of the dense model's, so that trials of another hour or process compare.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from secateur.core.errors import StorageError
from secateur.search.pareto import Goal
from secateur.search.study_space import Choice

State = Literal["complete", "pruned", "failed"]
METRIC = Goal("metric", maximise=True)


def goals_of(costs: Sequence[str]) -> tuple[Goal, ...]:
    """The metric, which is better when higher, and costs, which are better when lower."""
    return (METRIC, *(Goal(name) for name in costs))


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """metric: on the validation data, None where it was not reached. costs: what is left of each,
    as a share of the dense model's; empty where no plan could be made. early: the metric after the
    first part of the recovery. amounts: costs in their own units, latency in ms as measured then.
    line: whether it is one of the plain trials. plan: its hash. reason: why it is not complete."""

    number: int
    state: State
    choice: Choice
    line: bool
    metric: float | None = None
    early: float | None = None
    costs: Mapping[str, float] = field(default_factory=dict)
    amounts: Mapping[str, float] = field(default_factory=dict)
    plan: str | None = None
    reason: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def point(self) -> tuple[float, ...]:
        """The metric and the costs of a complete trial, in the order of the goals."""
        assert self.metric is not None
        return (self.metric, *self.costs.values())

    def to_json(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: str) -> Trial:
        """Inverse of `to_json`, from text. Raises: StorageError."""
        try:
            body = json.loads(text)
            return cls(**{**body, "choice": Choice(**body["choice"])})
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(
                f"this is no trial of a search ({type(error).__name__}: {error}); it was written "
                "by another version or by hand; choose another folder"
            ) from error
