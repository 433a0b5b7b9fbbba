"""The road of a run: its stages one after another, each from what the one before it made.

A finished stage is read and not done again. The random baseline goes the same road, with the random
criterion in place of every other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import ModuleType

from torch import nn

from secateur.cli.loop import only_limit
from secateur.cli.mask_settings import MaskStage
from secateur.cli.output import say
from secateur.cli.prune_settings import PruneStage
from secateur.cli.run_directory import StageFolder
from secateur.cli.stage_settings import Stage
from secateur.cli.subject import Subject
from secateur.cli.work import Place, read, row_of, start, write
from secateur.core import lookup
from secateur.core.plan import Plan
from secateur.masks import fold_
from secateur.report.row import ModelRow
from secateur.report.words import amount, percent

PACKAGE = "secateur.cli.stages"
PRUNED, RANDOM = "pruned", "random"


@dataclass(frozen=True)
class Walked:
    """What came of a road. model: an ordinary one, zeros plain. plan: all cuts as one of the dense
    model. folders: of the stages. rows: of the stages, where there are several. notes: for the
    report."""

    name: str
    model: nn.Module
    plan: Plan
    folders: tuple[StageFolder, ...]
    rows: tuple[ModelRow, ...]
    notes: tuple[str, ...]


def walk(subject: Subject, base: StageFolder, stages: Sequence[Stage], *, name: str) -> Walked:
    """Go the road, from the last finished stage on. Raises: every error of the stages."""
    places = [_place(subject, base, stages, number, name) for number in range(len(stages))]
    finished = subject.world.first(_finished(places), what="the finished stages")
    work = read(places[finished - 1]) if finished else start(subject)
    rows = [_told(place, work.plan) for place in places[:finished]]
    for place, stage in list(zip(places, stages, strict=True))[finished:]:
        write(_module(stage).run(work, stage.settings, place), place)
        work = read(place)
        rows.append(_told(place, work.plan))
    return Walked(
        name,
        fold_(work.model),
        work.plan,
        tuple(place.folder for place in places),
        tuple(row for row in rows if row is not None),
        () if work.masks is None else work.masks.notes,
    )


def is_random(stages: Sequence[Stage]) -> bool:
    """Whether nothing on the road was chosen by a criterion that says anything."""
    return all(
        stage.recover is not None or stage.settings.criterion == "random" for stage in stages
    )


def at_random(stages: Sequence[Stage], walked: Walked) -> tuple[Stage, ...]:
    """The same road with random choices, to as small a model."""
    return tuple(
        _random_stage(stage, folder) for stage, folder in zip(stages, walked.folders, strict=True)
    )


def _random_stage(stage: Stage, folder: StageFolder) -> Stage:
    settings = stage.settings
    if isinstance(settings, PruneStage):
        settings = replace(settings, criterion="random")
        if settings.loop is not None:  # one cut to where the loop came, and one recovery
            limit = only_limit(settings.budget)
            reached = limit.value(Plan.load(folder.plan).after)
            settings = replace(settings, loop=None, budget=f"{limit.metric}={reached:.0f}")
        return Stage(prune=settings)
    if isinstance(settings, MaskStage):
        # masks that move would be chosen by their gradients after all
        return Stage(mask=replace(settings, criterion="random", dynamic=None))
    return stage


def _place(
    subject: Subject, base: StageFolder, stages: Sequence[Stage], index: int, name: str
) -> Place:
    folder = base.stage(index + 1, stages[index].name, of=len(stages))
    label = name if len(stages) == 1 else f"{name} {folder.path.name}"
    return Place(subject, folder, label, prove=name == PRUNED)


def _finished(places: Sequence[Place]) -> int:
    """How many stages are finished, from the first on."""
    there = [place.folder.model.exists() for place in places]
    count = there.index(False) if False in there else len(there)
    for place in places[:count]:
        if len(places) > 1:
            say(f"{place.name}: finished before")
    return count


def _told(place: Place, plan: Plan) -> ModelRow | None:
    """The figures of a stage of several; those of an only one are measured at the end."""
    if place.name == PRUNED or not place.prove:
        return None
    row = row_of(place, plan)
    figures = [f"{amount(row.params)} parameters", f"{amount(row.macs)} MACs"]
    figures += [f"{amount(row.zeros)} zeros"] if row.zeros else []
    figures += [] if row.accuracy is None else [f"accuracy {percent(row.accuracy)}"]
    say(f"{row.name}: {', '.join(figures)}")
    return row


def _module(stage: Stage) -> ModuleType:
    return lookup.find(PACKAGE, stage.name, kind="stage")
