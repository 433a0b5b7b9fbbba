"""What can be said to a command, as frozen values: the fields are its flags and a recipe's keys.

Sections that several commands share are written once here; `flags` turns them into options and
`recipe` reads them from YAML. The names are frozen by a test.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from secateur.cli.engine_settings import Engines
from secateur.cli.flags import argument, flag, required, section
from secateur.cli.prune_settings import Cutting, PruneStage
from secateur.cli.recovery_settings import RECOVERY, Recovery
from secateur.cli.stage_settings import Stage

if TYPE_CHECKING:
    from secateur.search.timing import Device

MODEL = "torchvision:NAME, timm:NAME, hf:ID_OR_FOLDER, python.module:callable, or a saved folder"
DATA = "what to calibrate, recover and evaluate on: digits, idx:FOLDER, python.module:callable"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Which model, with which weights."""

    model: str = argument(MODEL)
    weights: str | None = flag(None, 'published weights to load, "default" for the best')
    image_size: int | None = flag(None, "of the example inputs, in pixels")


@dataclass(frozen=True, kw_only=True)
class Pruning(Cutting):
    """A cut of a model, with the data that the criterion looks at."""

    huggingface: bool = flag(False, "cut only so that plain from_pretrained loads the result")
    data: str | None = flag(None, DATA)
    seed: int = flag(0, "of every random choice")


@dataclass(frozen=True, kw_only=True)
class InspectSettings(Source):
    """What can be removed from a model, and what is pinned and why."""

    all: bool = flag(False, "list every pinned group, not only how many for each reason")
    strict: bool = flag(False, "fail on an operator without a rule instead of pinning")


@dataclass(frozen=True, kw_only=True)
class Serving:
    """How a latency is measured, and what time is worth."""

    latency_batch: int | None = flag(None, "batch of the latency, by default the example's")
    threads: int | None = flag(None, "threads of the latency, by default torch's choice")
    runtime: str = flag("eager", "of the latency: eager, compile, onnxruntime, openvino")
    latency_precision: str = flag("fp32", "of the latency: fp32, bf16, int8, as the runtime has")
    watts: float | None = flag(None, "that the device draws, where it counts no energy itself")
    price_per_hour: float | None = flag(None, "of the machine; a million requests are priced")

    @property
    def served(self) -> Device:
        """The same as a value. Raises: ValueError for what there is not."""
        from secateur.search.timing import Device

        return Device(self.latency_batch, self.threads, self.runtime, self.latency_precision)


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Serving, Pruning, Source):
    """How a plan is made; nothing is changed."""

    out: Path = flag(Path("plan.json"), "where to write the plan", short="-o")
    sensitivities: Path | None = flag(None, "what `secateur sensitivity` wrote, for knapsack")
    dry_run: bool = flag(False, "show the plan and its cost, write nothing")


@dataclass(frozen=True, kw_only=True)
class SensitivitySettings(Source):
    """What a removal costs, group by group."""

    data: str = required(DATA)
    criterion: str = flag("l2", "the order in which a group's units go")
    calibration: int = flag(512, "samples of the training data that the criterion looks at")
    samples: int = flag(1024, "of the validation split, that the loss is taken over")
    depths: tuple[str, ...] = flag(
        ("12.5%", "25%", "50%", "75%", "90%"), "share of a group's units that goes (repeated)"
    )
    seed: int = flag(0, "of every random choice")
    out: Path = flag(Path("sensitivities.json"), "where to write them; goes on there", short="-o")
    svg: Path | None = flag(None, "draw the curves into this file")


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
class RunSettings(Engines, Serving, PruneStage, Pruning, Source):
    """A whole run: the keys of a recipe. Without `stages` it is one `prune` stage, said here."""

    model: str = required(MODEL)
    out: Path = flag(Path("runs/latest"), "the run directory", short="-o")
    stages: tuple[Stage, ...] | None = section(Stage, help={}, absent=True)
    recover: Recovery | None = section(Recovery, help=RECOVERY)
    batch_size: int = flag(64, "of training and evaluation")
    baseline: bool = flag(True, "cut and recover a copy at random too, to compare with")
    device: str | None = flag(None, "where to compute, for example cuda")
    redo: bool = flag(False, "do again what a changed recipe changes, and keep the stages before")
    dry_run: bool = flag(False, "show the plan and its cost, write nothing")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_engine()
        if self.stages is not None:
            self._check_stages(self.stages)
        elif self.needs_data and self.data is None:
            name = "reconstruct" if self.reconstruct else "gradual"
            raise ValueError(f"{name} needs data; write for example data: digits")

    @property
    def road(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        if self.stages is not None:
            return self.stages
        own = {item.name: getattr(self, item.name) for item in fields(PruneStage)}
        return (Stage(prune=PruneStage(**own)),)

    def _check_stages(self, stages: tuple[Stage, ...]) -> None:
        if not stages:
            raise ValueError("stages is empty; list at least one, for example `- prune: {...}`")
        plain = _defaults(type(self))
        for item in fields(PruneStage):
            if getattr(self, item.name) != plain[item.name]:
                raise ValueError(
                    f"{item.name} stands beside stages and would be of none of them; write it "
                    "into the stage that it is meant for"
                )
        names = [stage.name for stage in stages]
        if "mask" in names and "prune" in names[names.index("mask") :]:
            raise ValueError(
                "stages: a prune stage after a mask stage would cut what is masked; list prune "
                "before mask"
            )
        if sum(name == "prune" for name in names) > 1 and any(
            stage.prune is not None and stage.prune.select.blocks is not None for stage in stages
        ):
            raise ValueError(
                "stages: whole blocks go in the only prune stage, for layers are numbered anew; "
                "write blocks and budget into one"
            )
        if self.data is None and any(stage.trains for stage in stages):
            raise ValueError(
                "stages: one of them trains and there is no data; write for example data: digits"
            )


@dataclass(frozen=True, kw_only=True)
class ReportSettings:
    """Which run is told."""

    run: Path = argument("a finished run directory")
    out: Path | None = flag(None, "where to write the page, by default RUN/report.html", short="-o")


def _defaults(settings: type) -> dict[str, Any]:
    return {
        item.name: item.default if item.default_factory is MISSING else item.default_factory()
        for item in fields(settings)
    }
