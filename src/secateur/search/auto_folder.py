"""The run directory of automatic pruning: a run that is killed at any moment goes on from it.

    auto.json          what the run was told, and a digest of the dense model
    dense.json         what the dense model measured, and what is reachable
    clock.json         seconds spent
    steps/003/         a finished step: step.json, and model/ with its plan.json (saved as ever)
    under_way/003/     the step that is being taken: the cut model, the learning rates tried for it,
                       and checkpoints of its recovery
    best.json          which step is the best so far
    model/, plan.json, proof.json, result.json    in the end

Everything is written beside its place and renamed into it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.atomic import replacing_folder, write_text
from secateur.core.copies import copied
from secateur.core.errors import StorageError
from secateur.core.fingerprint import weights_digest
from secateur.core.plan import Plan
from secateur.cut.layout import lay_out_like_
from secateur.search.auto_values import AutoSettings, AutoStep
from secateur.storage import load, save
from secateur.storage.layout import PLAN

MODEL, STEP, ROW = "model", "step.json", "row.json"


@dataclass(frozen=True)
class Cut:
    """A cut model before its recovery. plan: all cuts as one of the dense model. row: what is known
    of the step so far."""

    model: nn.Module
    plan: Plan
    row: Mapping[str, Any]


@dataclass(frozen=True)
class AutoFolder:
    """The files of one run. example: kept beside the last model. source: what builds the dense
    model, as `storage.save` takes it."""

    path: Path
    dense: nn.Module
    example: Any
    source: str | None = None

    @property
    def clock(self) -> Path:
        return self.path / "clock.json"

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def timings(self) -> Path:
        """Of the models between dense and target, which no other run will meet."""
        return self.path / "timings"

    @property
    def best(self) -> Path:
        return self.path / "best.json"

    def open(self, settings: AutoSettings) -> None:
        """Begin a run, or take up one that was told the same. Raises: StorageError."""
        told = {"settings": settings.decisive(), "dense": weights_digest(self.dense)}
        told = json.loads(json.dumps(told))
        place = self.path / "auto.json"
        if not place.is_file():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise StorageError(
                    f"{self.path} holds something that is no automatic pruning; choose another "
                    "run directory"
                )
            write_text(place, json.dumps(told, indent=1) + "\n")
            return
        before = json.loads(place.read_text(encoding="utf-8"))
        if before == told:
            for half_written in (self.path / "steps").glob(".*"):  # by a run that was killed
                shutil.rmtree(half_written, ignore_errors=True)
            return
        keys = [
            key for key, value in told["settings"].items() if before["settings"].get(key) != value
        ]
        differs = f"other settings ({', '.join(keys)})" if keys else "another dense model"
        raise StorageError(
            f"{self.path} holds a run that was started with {differs}; choose another run "
            "directory, or remove it to begin again"
        )

    def once(self, name: str, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Plain values: read if they were made before, else made and written."""
        path = self.path / name
        if not path.is_file():
            write_text(path, json.dumps(make(), indent=1) + "\n")
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return found

    def history(self) -> list[AutoStep]:
        """The finished steps, in order."""
        found: list[AutoStep] = []
        while (path := self._step(len(found) + 1) / STEP).is_file():
            found.append(AutoStep(**json.loads(path.read_text(encoding="utf-8"))))
        return found

    def write_step(self, step: AutoStep, model: nn.Module | None, plan: Plan | None) -> None:
        """Finish a step; what was under way for it is removed."""
        with replacing_folder(self._step(step.number)) as beside:
            if model is not None:
                self._save(model, beside / MODEL, plan)
            text = json.dumps(step.to_json(), indent=1) + "\n"
            (beside / STEP).write_text(text, encoding="utf-8")
        shutil.rmtree(self.under_way(step.number), ignore_errors=True)

    def read_step(self, number: int) -> tuple[nn.Module, Plan | None]:
        """The model that a step ended with and its plan; a copy of the dense model for step 0."""
        if number == 0:
            return copied(self.dense), None
        return self.load(self._step(number) / MODEL)

    def under_way(self, number: int) -> Path:
        """Where a step that is not finished works."""
        return self.path / "under_way" / f"{number:03d}"

    def cut(self, number: int, make: Callable[[], Cut]) -> Cut:
        """The cut of a step: read if it was made before, else made and written."""
        folder = self.under_way(number) / "cut"
        if not (folder / ROW).is_file():
            made = make()
            with replacing_folder(folder) as beside:
                self._save(made.model, beside / MODEL, made.plan)
                (beside / ROW).write_text(json.dumps(dict(made.row)), encoding="utf-8")
        model, plan = self.load(folder / MODEL)
        assert plan is not None, "a cut is saved with its plan"
        return Cut(model, plan, json.loads((folder / ROW).read_text(encoding="utf-8")))

    def finish(self, model: nn.Module, plan: Plan | None) -> None:
        """Write the model that the run ends with."""
        save(model, self.path / MODEL, plan=plan, example=self.example, source=self.source)
        if plan is not None:
            plan.save(self.path / PLAN)

    def _step(self, number: int) -> Path:
        return self.path / "steps" / f"{number:03d}"

    def _save(self, model: nn.Module, folder: Path, plan: Plan | None) -> None:
        save(model, folder, plan=plan, source=self.source)

    def load(self, folder: Path) -> tuple[nn.Module, Plan | None]:
        """A saved model, where the dense one lies and in its layout."""
        model = load(folder, lambda: copied(self.dense))
        lay_out_like_(self.dense, model)
        plan = folder / PLAN
        device = next((p.device for p in self.dense.parameters()), torch.device("cpu"))
        return model.to(device), Plan.load(plan) if plan.is_file() else None
