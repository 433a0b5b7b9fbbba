"""What can be said to a command, as frozen values: the fields are its flags and a recipe's keys.

Sections that several commands share are written once here; `flags` turns them into options and
`recipe` reads them from YAML. The names are frozen by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from secateur.cli.flags import argument, flag, required, section
from secateur.select.constraints import Constraints
from secateur.train.settings import FinetuneSettings

MODEL = "torchvision:NAME, timm:NAME, hf:ID_OR_FOLDER, python.module:callable, or a saved folder"
DATA = "what to calibrate, recover and evaluate on: digits, idx:FOLDER"
SELECTION = {
    "selector": "how the budget is spread over the groups",
    "normalise": "divide a group's scores by their mean or max before groups are compared, or none",
    "keep": "share of units that stays (a recipe may map ids or patterns of groups to shares)",
    "sparsity": "share of units that goes",
    "threshold": "units with a score of at least this stay",
    "min_units": "no group gets smaller than this",
    "multiple_of": "of this the widths of layers are multiples, or a group stays whole",
    "tensor_parallel": "so many devices can share the sharded layers equally",
    "uniform_layers": "repeated layers keep equal counts",
    "keep_modules": "pattern of modules whose shape stays (may be repeated)",
    "equal": "pattern of groups that keep equal counts (may be repeated)",
    "groups": "pattern of the only groups to prune (may be repeated)",
    "include_structural": "prune structural groups too",
    "blocks": "share or number of residual blocks that go as a whole, before any unit",
}
RECOVERY = {
    "epochs": "passes over the training data",
    "optimizer": "which optimizer",
    "lr": "the highest learning rate",
    "momentum": "of sgd",
    "weight_decay": "of the optimizer",
    "schedule": "how the learning rate changes",
    "warmup": "share of all steps in which the learning rate rises",
    "accumulate": "batches for one optimizer step",
    "clip_norm": "largest norm of all gradients together",
    "precision": "of the computation, under autocast",
    "patience": "stop after so many epochs without a better metric",
    "steps_per_epoch": "shorten an epoch to so many steps",
    "checkpoint_every": "optimizer steps between checkpoints, besides one after each epoch",
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which model, with which weights."""

    model: str = argument(MODEL)
    weights: str | None = flag(None, 'published weights to load, "default" for the best')
    image_size: int | None = flag(None, "of the example inputs, in pixels")


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """How much goes, which units, and what the criterion looks at."""

    budget: str | None = flag(None, 'at most what may remain: "macs=50%", "params=1.2M", or both')
    criterion: str = flag("l2", "what makes a unit important")
    select: Constraints = section(Constraints, help=SELECTION)
    huggingface: bool = flag(False, "cut only so that plain from_pretrained loads the result")
    data: str | None = flag(None, DATA)
    calibration: int = flag(512, "samples of the training data that the criterion looks at")
    seed: int = flag(0, "of every random choice")


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Prune in steps and retrain after each, down to the budget or to the floor."""

    steps: int = flag(5, "prune in so many steps, retraining after each")
    remaining: Literal["geometric", "cubic"] = flag("geometric", "how much each step leaves")
    floor: float | None = flag(None, "lowest accuracy on the validation split")
    max_drop: float | None = flag(None, "lowest accuracy, as a drop from the dense model's")
    retries: int = flag(3, "halved steps after one that fell below the floor")


@dataclass(frozen=True, kw_only=True)
class InspectSettings(Source):
    """What can be removed from a model, and what is pinned and why."""

    all: bool = flag(False, "list every pinned group, not only how many for each reason")
    strict: bool = flag(False, "fail on an operator without a rule instead of pinning")


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Pruning, Source):
    """How a plan is made; nothing is changed."""

    out: Path = flag(Path("plan.json"), "where to write the plan", short="-o")
    dry_run: bool = flag(False, "show the plan and its cost, write nothing")


@dataclass(frozen=True, kw_only=True)
class ApplySettings(Source):
    """Which plan is applied to which model."""

    plan: Path = argument("a plan.json made for this model")
    out: Path = required("the folder to save the cut model in")
    verify: bool = flag(True, "prove that the cut model equals the masked original")
    dry_run: bool = flag(False, "check that the plan fits and show what would change")


@dataclass(frozen=True, kw_only=True)
class VerifySettings(Source):
    """What is compared with the masked original."""

    plan: Path = argument("a plan.json made for this model")
    saved: Path | None = flag(None, "compare this saved folder instead of cutting anew")
    dtype: Literal["float64", "float32", "own"] = flag("float64", "compute in this precision")


@dataclass(frozen=True, kw_only=True)
class RunSettings(Pruning, Source):
    """A whole run: the keys of a recipe."""

    model: str = required(MODEL)
    out: Path = flag(Path("runs/latest"), "the run directory", short="-o")
    recover: FinetuneSettings | None = section(FinetuneSettings, help=RECOVERY)
    loop: LoopSettings | None = section(LoopSettings, absent=True)
    batch_size: int = flag(64, "of training and evaluation")
    baseline: bool = flag(True, "cut and recover a copy at random too, to compare with")
    latency_batch: int | None = flag(None, "batch of the latency, by default the example's")
    threads: int | None = flag(None, "threads of the latency, by default torch's choice")
    device: str | None = flag(None, "where to compute, for example cuda")
    dry_run: bool = flag(False, "show the plan and its cost, write nothing")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Which run is told."""

    run: Path = argument("a finished run directory")
    out: Path | None = flag(None, "where to write the page, by default RUN/report.html", short="-o")
