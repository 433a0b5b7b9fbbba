"""What automatic pruning is told, and what it says of each step that it took.

Progress counts the way to the target in logarithms of cost: 0 is the dense model, 1 the target, and
a half leaves the square root of what the target leaves, of every cost that it limits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.core.budget import Budget
from secateur.core.errors import BudgetError
from secateur.search.timing import Device
from secateur.select.constraints import Constraints
from secateur.train.batches import TensorBatches
from secateur.train.evaluate import accuracy
from secateur.train.objective import LossFn
from secateur.train.settings import FinetuneSettings

Validate = Callable[[nn.Module], float]
EVALUATION_BATCH = 256


@dataclass(frozen=True)
class AutoData:
    """train: batches that can be read again. validate: a number that is better when higher, on data
    by which everything is chosen. test: the same of data that nothing is chosen by, asked once for
    the dense model and once for the last. loss_fn: None for the model's own."""

    train: Iterable[Any]
    validate: Validate
    test: Validate | None = None
    loss_fn: LossFn | None = F.cross_entropy

    @classmethod
    def of_tensors(
        cls,
        train: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        test: tuple[Tensor, Tensor] | None = None,
        *,
        batch_size: int = 64,
        seed: int = 0,
    ) -> AutoData:
        """For classification: inputs and labels of the splits, judged by accuracy."""
        size = min(batch_size, len(train[0]))
        return cls(
            TensorBatches(*train, batch_size=size, seed=seed),
            _accuracy_on(validation),
            None if test is None else _accuracy_on(test),
        )


def _accuracy_on(split: tuple[Tensor, Tensor]) -> Validate:
    parts = (torch.split(tensor, EVALUATION_BATCH) for tensor in split)
    return partial(accuracy, data=list(zip(*parts, strict=True)))


ADAPT = "adapt"
"""The selector that is no ladder: groups give way as trying says, see `search.adapt`."""


@dataclass(frozen=True, slots=True)
class Way:
    """A criterion, and how what goes is spread over the groups: a selector, or `ADAPT`."""

    criterion: str
    selector: str = "uniform"
    normalise: str = "mean"

    def __str__(self) -> str:
        return f"{self.criterion}, {self.selector}"


WAYS = (Way("output_error", ADAPT, "none"), Way("l2"))
TRAINING = FinetuneSettings(
    optimizer="adamw", weight_decay=0.01, schedule="one_cycle", clip_norm=1.0, checkpoint_every=50
)


@dataclass(frozen=True, kw_only=True)
class AutoSettings:
    """target: what may remain, a budget. max_drop, floor: lowest metric, as a drop from the dense
    model's and absolute; where both are given both hold.

    time_limit_s: of all work, interrupted runs included. steps: cuts into which the way is divided.
    epochs: of the recovery after a cut; long_epochs: after the last cut, and wherever a shorter one
    was not enough; twice as many, and again, while that nearly is. attempts: steps in all, those
    undone included. lr: None to try a few rates after each cut. training: all else that recoveries
    are told. distil: follow the dense model. calibration: samples for scores and fitted weights.
    ways: the first is used until the floor breaks with it. device: how latency is measured.
    huggingface: cut only what a transformers configuration can express.
    """

    target: str
    max_drop: float | None = None
    floor: float | None = None
    time_limit_s: float | None = None
    steps: int = 3
    epochs: int = 1
    long_epochs: int = 4
    attempts: int = 16
    lr: float | None = None
    training: FinetuneSettings = TRAINING
    distil: bool = True
    calibration: int = 1024
    ways: Sequence[Way] = WAYS
    constraints: Constraints = field(default_factory=Constraints)
    device: Device = field(default_factory=Device)
    huggingface: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if any(limit.metric == "energy" for limit in Budget.parse(self.target).limits):
            raise ValueError(
                f"target {self.target!r}: auto does not measure energy; where the power is about "
                "the same, energy is time, so ask for latency=50%"
            )
        if self.max_drop is None and self.floor is None:
            raise ValueError(
                "say how much may be lost: max_drop=0.005 for half a point of accuracy, or floor=, "
                "the lowest metric that is good enough"
            )
        if self.max_drop is not None and self.max_drop < 0:
            raise ValueError(f"max_drop={self.max_drop:g}: what may be lost is not negative")
        for name in ("steps", "epochs", "long_epochs", "attempts", "calibration"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.time_limit_s is not None and not self.time_limit_s > 0:
            raise ValueError(f"time_limit={self.time_limit_s:g} s: must be more than nothing")
        if not self.ways:
            raise ValueError('ways is empty; give at least one, for example (Way("l2"),)')
        if self.constraints.blocks is not None or self.constraints.has_target:
            raise ValueError(
                "the target says how much goes; leave keep, sparsity, threshold and blocks out"
            )

    def lowest(self, dense: float) -> float:
        """The floor for a dense model of this metric.

        Raises: BudgetError where the dense model lies below it, or has no metric at all.

        >>> AutoSettings(target="macs=50%", max_drop=0.25, floor=0.5).lowest(1.0)
        0.75
        """
        drop = -math.inf if self.max_drop is None else dense - self.max_drop
        lowest = max(drop, -math.inf if self.floor is None else self.floor)
        if not dense >= lowest:
            raise BudgetError(
                f"the floor {lowest:.4g} is above the dense model's own {dense:.4g} on the "
                f"validation data: ask for a floor of {dense:.4g} or less, or train it further"
            )
        return lowest

    def decisive(self) -> dict[str, Any]:
        """What a run that is taken up again must agree in, as JSON gives it back: all but how long
        it may take."""
        plain = asdict(replace(self, time_limit_s=None))
        plain["constraints"] = self.constraints.to_json()
        plain["training"] = self.training.decisive()
        plain["ways"] = [asdict(way) for way in self.ways]
        return plain


@dataclass(frozen=True, slots=True)
class AutoStep:
    """One finished step.

    kind: "cut" from the model of step `base` (0: the dense one), or "longer": that model trained
    on; doubled: how often the epochs were. asked, reached: progress. shares: what remains of the
    dense model's cost, by metric of the target. metric_cut, metric: validation before and after
    recovery, None where there was no model. gain: of the metric in the last epoch. holds: whether
    the floor does. note: what to know.
    """

    number: int
    kind: str
    base: int
    asked: float
    reached: float
    way: int
    long: bool
    shares: Mapping[str, float]
    metric_cut: float | None
    metric: float | None
    epochs: float = 0.0
    lr: float | None = None
    gain: float | None = None
    holds: bool = False
    note: str = ""
    doubled: int = 0
    seconds: float = field(default=0.0, compare=False)

    @property
    def met(self) -> bool:
        """Whether target and floor both hold."""
        return self.holds and self.reached >= 1.0

    def words(self) -> str:
        """What remains, for people."""
        return ", ".join(f"{metric} {share:.1%}" for metric, share in self.shares.items())

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def progress_of(shares: Mapping[str, float], target: Mapping[str, float]) -> float:
    """How far the costs have come, the one that lags behind; 1 or more where all are met.

    >>> round(progress_of({"macs": 0.5}, {"macs": 0.25}), 2)
    0.5
    >>> progress_of({"macs": 0.5, "params": 0.1}, {"macs": 0.5, "params": 0.3})
    1.0
    """
    return min((_progress(shares[metric], share) for metric, share in target.items()), default=1.0)


def _progress(share: float, wanted: float) -> float:
    if share <= wanted:
        return 1.0
    way = math.log(share) / math.log(wanted) if wanted < 1.0 else 1.0
    return min(max(way, 0.0), 1.0 - 1e-9)


def shares_at(progress: float, target: Mapping[str, float]) -> dict[str, float]:
    """What may remain of each cost at some progress.

    >>> shares_at(0.5, {"macs": 0.25})
    {'macs': 0.5}
    """
    return {metric: min(1.0, wanted) ** progress for metric, wanted in target.items()}
