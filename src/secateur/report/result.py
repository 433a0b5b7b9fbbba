"""The outcome of a run as one value: `result.json`, from which page and table are drawn.

`dense`, `pruned` and `random` each hold at least params, macs, size_bytes, latency_ms, accuracy;
`proof` holds max_abs_error, groups_checked, groups_shape_only. The verdict, the warnings and the
speed-up are computed from the rest whenever the JSON is written, never read back.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from secateur.core.atomic import write_text
from secateur.core.errors import StorageError
from secateur.core.proof import Proof
from secateur.report.explain import Explanation
from secateur.report.machine import Machine
from secateur.report.row import ModelRow
from secateur.report.verdict import gain, headline, warnings

FORMAT = 1


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
        """Everything, and what follows from it: verdict, speed-up, all warnings."""
        gained = gain(self, self.pruned)
        return {
            "format": FORMAT,
            "title": self.title,
            "verdict": headline(self),
            "dense": self.dense.to_json(),
            "pruned": self.pruned.to_json(),
            "random": None if self.random is None else self.random.to_json(),
            "extra": [row.to_json() for row in self.extra],
            "speedup": None if gained is None else gained.to_json(),
            "proof": None if self.proof is None else self.proof.to_json(),
            "plan_hash": self.plan_hash,
            "settings": dict(self.settings),
            "seed": self.seed,
            "machine": self.machine.to_json(),
            "curves": [asdict(curve) for curve in self.curves],
            "explanation": self.explanation.to_json(),
            "warnings": list(self.warnings),
            "all_warnings": list(warnings(self)),
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


def save_result(result: Result, path: str | Path) -> None:
    """Write `result.json` whole or not at all. Raises: StorageError, ValueError for NaN."""
    text = json.dumps(result.to_json(), indent=1, ensure_ascii=False, allow_nan=False)
    write_text(Path(path), text + "\n")


def load_result(path: str | Path) -> Result:
    """Read what `save_result` wrote. Raises: StorageError naming the file and what to do."""
    path = Path(path)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        if body["format"] != FORMAT:
            raise StorageError(
                f"{path} has format {body['format']}, this secateur reads format {FORMAT}; "
                "run again, or install the secateur that wrote it"
            )
        return Result.from_json(body)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"{path} is not a secateur result ({type(error).__name__}: {error}); "
            "give a finished run directory, as in `secateur report runs/demo`"
        ) from error
