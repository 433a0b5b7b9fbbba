"""What can be said to the stages of a run, as frozen values: `prune`, `mask`, `recover`.

A recipe lists them under `stages`, one after another. The fields of one `prune` stage may also
stand at the top of a recipe and are flags there: that is the short way to say a run of one stage.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from secateur.cli.distil_settings import DistilSettings
from secateur.cli.flags import flag, section
from secateur.core.budget import Budget
from secateur.core.lookup import find
from secateur.masks.patterns import parse
from secateur.masks.scores import Asked
from secateur.select.constraints import Constraints
from secateur.train.gradual_values import RUNNING, GradualSettings
from secateur.train.settings import FinetuneSettings

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
    "ema": "decay of an average of the weights to validate and to end with",
    "rewind_to": "skip so many epochs of the schedule and train the rest",
}


@dataclass(frozen=True, slots=True)
class Recovery(FinetuneSettings):
    """How to fine-tune, and whom to follow while doing so."""

    distil: DistilSettings | None = section(
        DistilSettings,
        help={
            "teacher": "follow a teacher: dense, or a model as --model takes it",
            "hard": "weight of the labels beside the teacher",
        },
        absent=True,
    )

    @property
    def training(self) -> FinetuneSettings:
        """Only what `finetune` is told."""
        return FinetuneSettings(**{f.name: getattr(self, f.name) for f in fields(FinetuneSettings)})


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """Prune in steps and retrain after each, down to the budget or to the floor."""

    steps: int = flag(5, "prune in so many steps, retraining after each")
    remaining: Literal["geometric", "cubic"] = flag("geometric", "how much each step leaves")
    floor: float | None = flag(None, "lowest accuracy on the validation split")
    max_drop: float | None = flag(None, "lowest accuracy, as a drop from the dense model's")
    retries: int = flag(3, "halved steps after one that fell below the floor")


@dataclass(frozen=True, kw_only=True)
class GradualCuts:
    """Prune while training: the model shrinks in `cuts` steps between two shares of all steps."""

    cuts: int = 8
    begin: float = 0.05
    end: float = 0.5
    remaining: Literal["cubic", "geometric"] = "cubic"
    memory: int = 50

    def __post_init__(self) -> None:
        _ordered("begin", self.begin, "end", self.end)


@dataclass(frozen=True, kw_only=True)
class Cutting:
    """How much goes, which units, and what the criterion looks at."""

    budget: str | None = flag(None, 'at most what may remain: "macs=50%", "params=1.2M", or both')
    criterion: str = flag("l2", "what makes a unit important")
    select: Constraints = section(Constraints, help=SELECTION)
    calibration: int = flag(512, "samples of the training data that the criterion looks at")

    def __post_init__(self) -> None:
        if self.budget is not None:
            Budget.parse(self.budget)
        if self.criterion != RUNNING:
            find("secateur.criteria", self.criterion, kind="criterion")
        find("secateur.select", self.select.selector, kind="selector")


@dataclass(frozen=True, kw_only=True)
class PruneStage(Cutting):
    """Units go for real: at once, in the steps of a loop, or while training."""

    reconstruct: bool = flag(False, "fit what is left to the dense layers' outputs, on calibration")
    gradual: GradualCuts | None = section(
        GradualCuts,
        help={
            "cuts": "prune while training, in so many cuts",
            "begin": "share of the training before the first of these cuts",
            "end": "share of the training before the last of them",
        },
        absent=True,
    )
    loop: LoopSettings | None = section(LoopSettings, absent=True)
    recover: Recovery | None = section(Recovery, help=RECOVERY, absent=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gradual is not None and self.loop is not None:
            raise ValueError("loop and gradual are two ways to spread a pruning; leave one out")
        if self.reconstruct and (self.gradual is not None or self.loop is not None):
            raise ValueError(
                "reconstruct fits the weights after one cut; leave it out beside loop and gradual"
            )
        if self.gradual is None and self.criterion == RUNNING:
            raise ValueError(
                f"criterion {RUNNING!r} is of a training's own gradients; add for example "
                "`gradual: {cuts: 8}`, or name another criterion"
            )

        if self.gradual is not None:
            if self.recover is None:
                raise ValueError("gradual prunes while training; add `recover: {epochs: 10}`")
            self.while_training(seed=0, huggingface=False)

    def while_training(self, *, seed: int, huggingface: bool) -> GradualSettings:
        """What `prune_while_training` is told. Raises: ValueError."""
        assert self.gradual is not None
        if self.budget is None:
            raise ValueError("gradual goes toward a budget; write for example budget: macs=50%")
        if self.select.blocks is not None:
            raise ValueError("gradual cuts units; leave blocks out, or prune them at once")
        plain = asdict(Constraints())
        return GradualSettings(
            budget=self.budget,
            cuts=self.gradual.cuts,
            begin=self.gradual.begin,
            end=self.gradual.end,
            schedule=self.gradual.remaining,
            criterion=self.criterion,
            memory=self.gradual.memory,
            options={k: v for k, v in asdict(self.select).items() if v != plain[k]},
            seed=seed,
            huggingface=huggingface,
        )

    @property
    def needs_data(self) -> bool:
        """Whether nothing can come of it without data; recovery is left out then."""
        return self.reconstruct or self.gradual is not None


@dataclass(frozen=True, kw_only=True)
class GradualMasks:
    """The sparsity rises from `initial` while training, every `interval` optimizer steps between
    two shares of all steps; power 3 is the cubic of Zhu & Gupta."""

    initial: float = 0.0
    begin: float = 0.0
    end: float = 0.75
    interval: int = 100
    power: float = 3.0

    def __post_init__(self) -> None:
        _ordered("begin", self.begin, "end", self.end)


@dataclass(frozen=True, kw_only=True)
class DynamicMasks:
    """The masks move while training, every `interval` steps until the share `end` of all: RigL;
    grow random and decay constant is SET."""

    end: float = 0.75
    interval: int = 100
    fraction: float = 0.3
    grow: Literal["gradient", "random"] = "gradient"
    decay: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        _ordered("begin", 0.0, "end", self.end)


@dataclass(frozen=True, kw_only=True)
class MaskStage:
    """Single weights are held at zero: at once, more and more while training, or moving.

    erdos_renyi: thin layers stay denser than thick ones. The rest is as in `mask_`.
    """

    pattern: str = "unstructured"
    sparsity: float | Mapping[str, float] | None = None
    threshold: float | None = None
    criterion: str = "l1"
    scope: Literal["global", "layer"] = "global"
    erdos_renyi: bool = False
    skip: Sequence[str] = ()
    calibration: int = 512
    gradual: GradualMasks | None = None
    dynamic: DynamicMasks | None = None
    recover: Recovery | None = None

    def __post_init__(self) -> None:
        own = parse(self.pattern).sparsity
        _ = Asked(self.criterion).rule  # raises where there is none
        if own is not None and (self.sparsity is not None or self.threshold is not None):
            raise ValueError(
                f"pattern {self.pattern!r} itself says how much goes, {own:g}; leave sparsity and "
                "threshold out"
            )
        if own is None and (self.sparsity is None) == (self.threshold is None):
            raise ValueError(
                "say how much shall be zero: sparsity: 0.8 or threshold: 0.01, one of them, or "
                'pattern: "2:4"'
            )
        if isinstance(self.sparsity, float) and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is the share of zeros, in [0, 1), not {self.sparsity}")
        self._check_schedule()

    def _check_schedule(self) -> None:
        schedules = [name for name in ("gradual", "dynamic") if getattr(self, name) is not None]
        if len(schedules) == 2:
            raise ValueError("gradual and dynamic are two schedules of one mask; leave one out")
        whole = isinstance(self.sparsity, float)
        if "gradual" in schedules and not whole:
            raise ValueError(
                "gradual raises one sparsity of the whole model; give sparsity: 0.8, without N:M "
                "pattern, threshold or shares by name"
            )
        if self.erdos_renyi and not (whole and "gradual" not in schedules):
            raise ValueError(
                "erdos_renyi spreads one sparsity over the layers; give sparsity: 0.9, and leave "
                "gradual out"
            )
        if "dynamic" in schedules and self.pattern != "unstructured":
            raise ValueError(
                f"dynamic moves single weights; leave pattern {self.pattern!r} out, or dynamic"
            )
        if schedules and self.recover is None:
            raise ValueError(
                f"{schedules[0]} masks while training; add for example `recover: {{epochs: 5}}`"
            )


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of a recipe's `stages`: exactly one of these."""

    prune: PruneStage | None = None
    mask: MaskStage | None = None
    recover: Recovery | None = None

    def __post_init__(self) -> None:
        given = [item.name for item in fields(self) if getattr(self, item.name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a stage is one of prune, mask and recover, not {' and '.join(given) or 'none'}; "
                'write one `- ` for each, for example `- mask: {pattern: "2:4"}`'
            )

    @property
    def name(self) -> str:
        """The word that it is listed under, and the file of `stages/` that does it."""
        return next(item.name for item in fields(self) if getattr(self, item.name) is not None)

    @property
    def settings(self) -> Any:
        """What is said of it."""
        return getattr(self, self.name)

    @property
    def trains(self) -> bool:
        """Whether a recipe that lists it must name data."""
        if self.recover is not None or self.settings.recover is not None:
            return True
        return self.prune is not None and (self.prune.needs_data or self.prune.loop is not None)


def _ordered(begin: str, first: float, end: str, last: float) -> None:
    if not 0 <= first <= last <= 1:
        raise ValueError(
            f"{begin}={first:g} and {end}={last:g} are shares of the training, in their order"
        )
