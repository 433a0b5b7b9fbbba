"""What can be said to a command, as frozen values: the fields are its flags and a recipe's keys.

Sections that several commands share are written once here; `flags` turns them into options and
`recipe` reads them from YAML. The names are frozen by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from secateur.cli.flags import argument, flag, required, section
from secateur.train.settings import FinetuneSettings

MODEL = "torchvision:NAME, timm:NAME, hf:ID_OR_FOLDER, python.module:callable, or a saved folder"
DATA = "calibration, training and test data: a name such as digits, or python.module:callable"
RECOVERY = {
    "epochs": "passes over the training data, 0 for no recovery",
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
    "device": "where to train, for example cuda",
}


@dataclass(frozen=True, kw_only=True)
class PruneSettings:
    """How much, which, and under which constraints."""

    budget: str = flag("macs=50%", 'at most what may remain: "macs=50%", "params=1.2M", or both')
    criterion: str = flag("l2", "what makes a unit important")
    selector: str = flag("global", "how the budget is spread over the groups")
    multiple_of: int = flag(1, "keep a multiple of this many units in every group")
    min_units: int = flag(1, "keep at least this many units in every group")
    keep: tuple[str, ...] = flag((), "leave the groups of this module alone (may be repeated)")
    structural: bool = flag(False, "cut structural groups as well")


@dataclass(frozen=True, kw_only=True)
class InspectSettings:
    """What can be removed from a model, and what is pinned and why."""

    model: str = argument(MODEL)
    all: bool = flag(False, "list every pinned group, not only how many for each reason")
    strict: bool = flag(False, "fail on an operator without a rule instead of pinning")


@dataclass(frozen=True, kw_only=True)
class PlanSettings:
    """How a plan is made; nothing is changed."""

    model: str = argument(MODEL)
    prune: PruneSettings = section(PruneSettings)
    data: str | None = flag(None, DATA)
    seed: int = flag(0, "of every random choice")
    out: Path = flag(Path("plan.json"), "where to write the plan", short="-o")
    dry_run: bool = flag(False, "show the plan and its cost, write nothing")


@dataclass(frozen=True, kw_only=True)
class ApplySettings:
    """Which plan is applied to which model."""

    model: str = argument(MODEL)
    plan: Path = argument("a plan.json made for this model")
    out: Path = required("the folder to save the cut model in")
    verify: bool = flag(True, "prove that the cut model equals the masked original")
    dry_run: bool = flag(False, "check that the plan fits and show what would change")


@dataclass(frozen=True, kw_only=True)
class VerifySettings:
    """What is compared with the masked original."""

    model: str = argument(MODEL)
    plan: Path = argument("a plan.json made for this model")
    tolerance: float = flag(1e-9, "largest relative error allowed, in float64")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A whole run: the keys of a recipe."""

    model: str = required(MODEL)
    data: str | None = flag(None, DATA)
    out: Path = flag(Path("runs/latest"), "the run directory", short="-o")
    seed: int = flag(0, "of every random choice")
    prune: PruneSettings = section(PruneSettings)
    recover: FinetuneSettings | None = section(FinetuneSettings, help=RECOVERY)
    baseline: bool = flag(True, "cut and recover a copy at random too, to compare with")
    batch_size: int | None = flag(None, "measure latency at this batch, by default the example's")
    threads: int | None = flag(None, "measure latency with this many threads")


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Which run is told."""

    run: Path = argument("a finished run directory")
    out: Path | None = flag(None, "where to write the page, by default RUN/report.html", short="-o")
