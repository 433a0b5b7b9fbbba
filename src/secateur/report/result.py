"""The outcome of a run as one value, from which JSON, page and table are made.

Every figure in it was counted or measured; what follows from them (verdict, speed-up, warnings)
is not stored here but computed by `verdict`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from secateur.core.proof import Proof
from secateur.report.explain import Explanation
from secateur.report.machine import Machine
from secateur.report.row import ModelRow


@dataclass(frozen=True, slots=True)
class Curve:
    """Recovery of one model, one figure an epoch: training loss and held-out accuracy."""

    name: str
    loss: tuple[float, ...]
    accuracy: tuple[float, ...]


@dataclass(frozen=True)
class Result:
    """title: which model on which data. random: the baseline cut to the same budget. extra:
    further points, such as 30 % fewer parameters. settings: how the plan was made. warnings:
    of the run; those that follow from the figures are added by `verdict.warnings`."""

    title: str
    dense: ModelRow
    pruned: ModelRow
    random: ModelRow | None
    proof: Proof | None
    plan_hash: str
    machine: Machine
    extra: tuple[ModelRow, ...] = ()
    curves: tuple[Curve, ...] = ()
    explanation: Explanation = field(default_factory=Explanation)
    settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int | None = None
    warnings: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[ModelRow, ...]:
        """Every model: dense, the pruned one, the random baseline, the extra points."""
        baseline = () if self.random is None else (self.random,)
        return (self.dense, self.pruned, *baseline, *self.extra)

    def to_json(self) -> dict[str, Any]:
        """The fields; what follows from them is added by `record.save_result`."""
        return {
            "title": self.title,
            "dense": self.dense.to_json(),
            "pruned": self.pruned.to_json(),
            "random": None if self.random is None else self.random.to_json(),
            "extra": [row.to_json() for row in self.extra],
            "proof": None if self.proof is None else self.proof.to_json(),
            "plan_hash": self.plan_hash,
            "settings": dict(self.settings),
            "seed": self.seed,
            "machine": self.machine.to_json(),
            "curves": [asdict(curve) for curve in self.curves],
            "explanation": self.explanation.to_json(),
            "warnings": list(self.warnings),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Result:
        """Inverse of `to_json`."""
        random, proof = body["random"], body["proof"]
        return cls(
            title=body["title"],
            dense=ModelRow.from_json(body["dense"]),
            pruned=ModelRow.from_json(body["pruned"]),
            random=None if random is None else ModelRow.from_json(random),
            proof=None if proof is None else Proof(**proof),
            plan_hash=body["plan_hash"],
            machine=Machine.from_json(body["machine"]),
            extra=tuple(ModelRow.from_json(row) for row in body["extra"]),
            curves=tuple(
                Curve(each["name"], tuple(each["loss"]), tuple(each["accuracy"]))
                for each in body["curves"]
            ),
            explanation=Explanation.from_json(body["explanation"]),
            settings=body["settings"],
            seed=body["seed"],
            warnings=tuple(body["warnings"]),
        )
