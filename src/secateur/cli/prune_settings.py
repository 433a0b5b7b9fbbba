"""What can be said of a `prune` stage: how much goes, which units, and how it is spread over time.

The fields of one such stage may also stand at the top of a recipe, and are flags there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from secateur.cli.flags import flag, section
from secateur.cli.recovery_settings import RECOVERY, Recovery, check_ordered
from secateur.core.budget import MEASURED, Budget
from secateur.core.lookup import find
from secateur.select.constraints import Constraints
from secateur.train.gradual_values import RUNNING, GradualSettings

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
        check_ordered("begin", self.begin, "end", self.end)


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
        spread = self.loop is not None or self.gradual is not None
        if self.budget is not None and spread:
            _check_counted(Budget.parse(self.budget))
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


def _check_counted(budget: Budget) -> None:
    for limit in budget.limits:
        if limit.metric in MEASURED:
            raise ValueError(
                f"budget {limit}: the steps of loop and gradual go toward what can be counted "
                "(params, macs, size, memory); leave them out to prune to a latency at once"
            )
