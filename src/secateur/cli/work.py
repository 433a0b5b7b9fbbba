"""What one stage of a run hands to the next, and where a stage works.

A finished stage is an ordinary saved folder, with masks folded into it, and the masks beside it.
Every stage begins from those files, in an undisturbed run as in a resumed one, so that both end
with the same bits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from secateur.cli.run_directory import StageFolder, by_first, once
from secateur.cli.subject import Subject
from secateur.core.atomic import write_text
from secateur.core.copies import copied
from secateur.core.plan import Plan
from secateur.core.world import World
from secateur.cut.compose import compose
from secateur.cut.layout import lay_out_like_
from secateur.masks import MaskPlan, fold_
from secateur.report.evaluate import evaluate
from secateur.report.row import ModelRow
from secateur.storage import load, save
from secateur.storage.layout import PLAN

if TYPE_CHECKING:
    from secateur.zoo.loaded import LoadedModel


@dataclass(frozen=True)
class Work:
    """plan: all cuts so far as one of the dense model; one that keeps all before the first. masks:
    that the model has on."""

    model: nn.Module
    plan: Plan
    masks: MaskPlan | None = None

    @property
    def is_cut(self) -> bool:
        """Whether anything was removed so far."""
        return bool(self.plan.keep or self.plan.removed)


@dataclass(frozen=True)
class Place:
    """Where a stage works. name: for its progress lines. prove: whether its cut is proved."""

    subject: Subject
    folder: StageFolder
    name: str
    prove: bool

    @property
    def world(self) -> World:
        """Of the ranks that do the stage together."""
        return self.subject.world

    def write_text(self, path: Path, text: str) -> None:
        """Write a file of the stage, once."""
        by_first(self.world, lambda: write_text(path, text), what=f"the writing of {path.name}")

    def loaded(self, work: Work) -> LoadedModel:
        """The subject's model as far as it is now."""
        return replace(self.subject.loaded, model=work.model)


def start(subject: Subject) -> Work:
    """The dense model, a copy, with a plan that keeps everything."""
    model = copied(subject.loaded.model)
    return Work(model, compose(subject.graph, [], final=model, settings={}))


def write(work: Work, place: Place) -> None:
    """Save what a stage made; its model last. The model's masks are folded."""
    by_first(place.world, lambda: _write(work, place), what=f"the writing of {place.name}")


def _write(work: Work, place: Place) -> None:
    if work.masks is not None:
        work.masks.save(place.folder.masks)
    write_model(fold_(work.model), place.folder.model, work.plan, place.subject)


def write_model(model: nn.Module, folder: Path, plan: Plan, subject: Subject) -> None:
    """Save a model so that `zoo.load_model(folder)` finds all it needs."""
    example, source = subject.loaded.example_inputs, subject.settings.model
    some = plan if plan.keep or plan.removed else None
    save(model, folder, plan=some, example=example, source=source)


def read(place: Place) -> Work:
    """What a finished stage made. Raises: StorageError."""
    model = read_model(place.folder, place.subject)
    of_all = place.folder.model / PLAN
    plan = Plan.load(of_all) if of_all.exists() else start(place.subject).plan
    if not place.folder.masks.exists():
        return Work(model, plan)
    masks = MaskPlan.load(place.folder.masks)
    masks.apply_(model)
    return Work(model, plan, masks)


def read_model(folder: StageFolder, subject: Subject) -> nn.Module:
    """The model that a stage saved, its zeros plain, in the layout of the dense one."""
    dense = subject.loaded.model
    model = load(folder.model, lambda: copied(dense)).to(next(dense.parameters()).device)
    lay_out_like_(dense, model)
    return model


def row_of(place: Place, plan: Plan) -> ModelRow:
    """The figures of a finished stage, counted and measured now or read."""
    path, batches = place.folder.row, place.subject.batches

    def make() -> ModelRow:
        return evaluate(
            read_model(place.folder, place.subject),
            place.folder.path.name,
            macs=plan.after.macs,
            peak_memory_bytes=plan.after.peak_memory_bytes,
            metric=None if batches is None else batches.measure,
        )

    return once(
        path,
        make=make,
        write=lambda row: write_text(path, json.dumps(row.to_json(), indent=1) + "\n"),
        read=lambda: ModelRow.from_json(json.loads(path.read_text(encoding="utf-8"))),
        world=place.world,
        alone=True,
    )
