"""What automatic pruning ends with: the model, how it came about, and the verdict; kept as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.core.plan import Plan
from secateur.search.auto_strategy import best_of
from secateur.search.auto_values import AutoStep
from secateur.search.reachable import Reachable
from secateur.search.where_time_goes import WhereTimeGoes


@dataclass(frozen=True)
class AutoResult:
    """model: the smallest that holds the floor, the dense one where none does. plan: that makes it
    of the dense model, None where that is it. met: whether target and floor both hold. ending: why
    it ended: "met", "floor", "attempts", "time" or "unreachable". verdict: that in a sentence.
    advice: what would help. history: every step, those undone included.

    metric, dense_metric: on validation data, by which all was chosen; test, dense_test: on data
    that nothing was chosen by, None without any. reachable, where: of latency, where the target
    speaks of it.
    """

    model: nn.Module
    plan: Plan | None
    met: bool
    ending: str
    verdict: str
    advice: tuple[str, ...]
    history: tuple[AutoStep, ...]
    target: str
    floor: float
    metric: float
    dense_metric: float
    test: float | None
    dense_test: float | None
    seconds: float
    reachable: Reachable | None = None
    where: WhereTimeGoes | None = None

    @property
    def best(self) -> AutoStep | None:
        """The step that the model is of."""
        return best_of(self.history)

    @property
    def shares(self) -> Mapping[str, float]:
        """What remains of each cost that the target limits."""
        return {} if self.best is None else self.best.shares

    def to_json(self) -> dict[str, Any]:
        """All but the model and the plan."""
        best = self.best
        return {
            "met": self.met,
            "ending": self.ending,
            "verdict": self.verdict,
            "advice": list(self.advice),
            "target": self.target,
            "floor": self.floor,
            "shares": dict(self.shares),
            "best_step": None if best is None else best.number,
            "plan_hash": None if self.plan is None else self.plan.hash,
            "metric": self.metric,
            "dense_metric": self.dense_metric,
            "test": self.test,
            "dense_test": self.dense_test,
            "seconds": round(self.seconds, 1),
            "history": [step.to_json() for step in self.history],
            "reachable": None if self.reachable is None else self.reachable.to_json(),
            "where": None if self.where is None else self.where.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any], model: nn.Module, plan: Plan | None) -> AutoResult:
        """Inverse of `to_json`."""
        plain = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        return cls(
            **plain
            | {
                "model": model,
                "plan": plan,
                "advice": tuple(body["advice"]),
                "history": tuple(AutoStep(**step) for step in body["history"]),
                "reachable": _read(Reachable, body["reachable"]),
                "where": _read(WhereTimeGoes, body["where"]),
            }
        )


def _read(kind: Any, body: Mapping[str, Any] | None) -> Any:
    return None if body is None else kind.from_json(body)
