"""The rows of `criteria_table.py`: how a trained model is cut, and how it is trained afterwards.

A `Way` is a tool, a criterion, a selection and a road. On the plain road nothing but the cut
differs; on the others the same number of epochs is used as well as we know how.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from fashion import BATCH, Augmented, settings
from torch import Tensor, nn

from secateur.core.atomic import replacing
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.graph import trace
from secateur.oneshot import reconstruct_
from secateur.search.adapt import Adapter, fitted_loss
from secateur.select.constraints import Constraints
from secateur.select.plan import plan
from secateur.train import (
    GradualSettings,
    Logits,
    TensorBatches,
    distilled,
    finetune,
    prune_while_training,
)
from secateur.train.objective import Objective, supervised
from secateur.zoo.data import Data

EXAMPLE = torch.zeros(1, 1, 28, 28)
LEAST = 4  # units that every group keeps under a global selection
PLAIN, FITTED = "plain", "fitted"
DISTILLED, FITTED_DISTILLED, GRADUAL = "distilled", "fitted, distilled", "gradual, distilled"
ROADS = {
    PLAIN: "one shot, then cross-entropy",
    FITTED: "one shot, weights fitted to the dense layers (`reconstruct_`), then cross-entropy",
    DISTILLED: "one shot, then distillation from the dense model",
    FITTED_DISTILLED: "one shot, weights fitted to the dense layers, then distillation",
    GRADUAL: "cut in {cuts} steps over the first {end:.0%} of the same epochs, distillation",
}
RATES = {PLAIN: 0.02, FITTED: 0.02, DISTILLED: 0.02, FITTED_DISTILLED: 0.02, GRADUAL: 0.05}
ADAMW, SGD = "adamw", "sgd"
RECIPES = {
    ADAMW: "AdamW, highest learning rate 0.003, images as they are",
    SGD: "SGD, images moved and mirrored at random",
}
"""How all rows of a section are trained, in bfloat16 autocast at a one-cycle learning rate."""
ADAMW_RATE, DECAY, CLIP = 0.003, 0.01, 1.0
CUTS, END = 12, 0.4
DRAWS = 10  # epochs with shifts and reflections of their own; of fifty that an image has
FIT = 8  # batches that what is tried is fitted on; the other calibration batches judge it
TEMPERATURE, HARD = 2.0, 0.1  # of distillation; weight of the labels beside it
RAW = ("output_error",)
"""Criteria whose scores are of one measure for all groups, which normalising would take away."""


@dataclass(frozen=True)
class Way:
    """tool: "secateur" or "Torch-Pruning". selection: "uniform" or "global", the same share of
    every group or one threshold over all, of scores that are divided by each group's mean in both
    tools, but for those in `RAW`; or "adapt", groups that give way as trying says."""

    tool: str
    criterion: str
    selection: str
    road: str = PLAIN
    recipe: str = SGD

    @property
    def name(self) -> str:
        """What its lines are kept under; the settings are part of it, so that a line that was made
        with others does not count."""
        if self.recipe == ADAMW:
            return (
                f"{self.tool}, {self.criterion}, {self.selection}, {self.road}, "
                f"adamw {ADAMW_RATE:g}, not augmented"
            )
        how = f"{RATES[self.road]:g}"
        if self.road not in (PLAIN, FITTED):
            how += f", {TEMPERATURE:g}, {HARD:g}"
        return f"{self.tool}, {self.criterion}, {self.selection}, {self.road}, {how}"

    @property
    def normalise(self) -> str:
        """What scores are divided by before groups are compared."""
        return "none" if self.criterion in RAW else "mean"


def ours(criterion: str, selection: str, road: str = PLAIN) -> Way:
    """A row of this library."""
    return Way("secateur", criterion, selection, road)


def theirs(criterion: str, selection: str, road: str = PLAIN) -> Way:
    """A row of Torch-Pruning."""
    return Way("Torch-Pruning", criterion, selection, road)


class Remembering(nn.Module):
    """A teacher that looks at a batch once: all rows of a seed are trained on the same batches.

    place: a file that keeps the answers from one process to the next, when `keep` is called.
    """

    def __init__(self, model: nn.Module, place: Path) -> None:
        super().__init__()
        self.model, self.place = model, place
        weights = b"".join(t.numpy().tobytes() for t in model.state_dict().values())
        self.key = hashlib.blake2b(weights, digest_size=16).digest()
        self.known: dict[bytes, Tensor] = torch.load(place) if place.is_file() else {}
        self.kept = len(self.known)

    def forward(self, x: Tensor) -> Tensor:
        mark = hashlib.blake2b(x.numpy().tobytes(), digest_size=16, key=self.key).digest()
        if mark not in self.known:
            self.known[mark] = self.model(x)
        return self.known[mark]

    def keep(self) -> None:
        """Write what is new."""
        if len(self.known) > self.kept:
            with replacing(self.place) as beside:
                torch.save(self.known, beside)
            self.kept = len(self.known)


@dataclass
class Again(Augmented):
    """The batches of the first `DRAWS` epochs, over and over, so that a teacher answers once."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch % DRAWS)


@dataclass(frozen=True)
class Task:
    """What a way is given: the trained dense model, images, and a share of the MACs."""

    dense: nn.Module
    teacher: nn.Module
    data: Data
    seed: int
    macs: float
    epochs: int

    def batches(self, recipe: str) -> Again | TensorBatches:
        """The recovery's."""
        seed = 100 + self.seed
        if recipe == SGD:
            return Again(self.data, seed=seed)
        x, y = self.data.train.tensors
        return TensorBatches(x, y, batch_size=BATCH, seed=seed, drop_last=True)

    @property
    def calibration(self) -> list[tuple[Tensor, Tensor]]:
        """Twenty batches, for every criterion that looks at data, of both tools."""
        batches = iter(Augmented(self.data, seed=50 + self.seed))
        return [next(batches) for _ in range(20)]


def prepare(way: Way, task: Task) -> nn.Module:
    """The model that the recovery starts from."""
    if way.road == GRADUAL:
        return copy.deepcopy(task.dense)
    calibration = task.calibration
    if way.tool == "Torch-Pruning":
        from criteria_table_peers import cut_by_torch_pruning

        whole = way.selection == "global"
        return cut_by_torch_pruning(
            task.dense,
            calibration,
            importance=way.criterion,
            whole=whole,
            macs=task.macs,
            seed=task.seed,
        )
    return _cut(way, task, calibration)


def _cut(way: Way, task: Task, calibration: Sequence[tuple[Tensor, Tensor]]) -> nn.Module:
    graph = trace(task.dense, EXAMPLE)
    scores = score(
        graph,
        task.dense,
        criterion=way.criterion,
        data=calibration,
        loss_fn=F.cross_entropy,
        seed=task.seed,
    )
    budget = f"macs={100 * task.macs:g}%"
    if way.selection == "adapt":
        seen = [x for x, _ in calibration[:FIT]]
        judge = fitted_loss(task.dense, data=seen, held=calibration[FIT:], loss_fn=F.cross_entropy)
        made = Adapter(graph, scores, judge, Constraints(min_units=LEAST)).plan(budget=budget)
    else:
        how = {"selector": way.selection, "normalise": way.normalise, "min_units": LEAST}
        made = plan(graph, scores, budget=budget, **how)
    small = cut(task.dense, made)
    if way.road in (FITTED, FITTED_DISTILLED):
        reconstruct_(small, task.dense, plan=made, data=[x for x, _ in calibration[:16]])
    return small


def recover_(model: nn.Module, way: Way, task: Task) -> None:
    """Train what `prepare` made, in place."""
    how = settings(task.epochs, lr=RATES[way.road], seed=task.seed)
    if way.recipe == ADAMW:
        changes = {"optimizer": "adamw", "weight_decay": DECAY, "clip_norm": CLIP}
        how = replace(how, lr=ADAMW_RATE, **changes)
    batches = task.batches(way.recipe)
    if way.road == GRADUAL:
        options = {"selector": way.selection, "min_units": LEAST}
        pruning = GradualSettings(
            f"macs={100 * task.macs:g}%",
            cuts=CUTS,
            begin=0.0,
            end=END,
            criterion=way.criterion,
            options=options,
            seed=task.seed,
        )
        prune_while_training(
            model,
            batches,
            example_inputs=EXAMPLE,
            pruning=pruning,
            settings=how,
            loss_fn=F.cross_entropy,
            objective=_objective(way, task),
        )
    else:
        finetune(model, batches, settings=how, objective=_objective(way, task))


def _objective(way: Way, task: Task) -> Objective:
    if way.road in (PLAIN, FITTED):
        return supervised(F.cross_entropy)
    if way.recipe == ADAMW:
        return distilled(F.cross_entropy, task.teacher)
    terms = (Logits(1 - HARD, temperature=TEMPERATURE),)
    return distilled(F.cross_entropy, task.teacher, terms=terms, hard=HARD)
