"""What a search is about: the model, how a candidate is recovered, and what it is judged by."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.budget import COUNTED
from secateur.search.study_space import PLAIN
from secateur.search.timing import Device
from secateur.select.constraints import Constraints
from secateur.train.batches import set_epoch_
from secateur.train.objective import LossFn
from secateur.train.run import Validate, length
from secateur.train.settings import FinetuneSettings

LATENCY = "latency"
COSTS = (LATENCY, *COUNTED)
CALIBRATION_BATCHES = 8

Precision = Callable[[nn.Module], nn.Module]
"""From a recovered model to what is validated and measured in its place, such as its int8 form."""


def as_it_is(model: nn.Module) -> nn.Module:
    """The precision that a model has."""
    return model


@dataclass(frozen=True, slots=True)
class Early:
    """When a trial is given up: after this part of its recovery a finished trial of the front that
    costs no more had a metric at least `margin` better at the same point."""

    part: float = 0.5
    margin: float = 0.02

    def __post_init__(self) -> None:
        if not 0 < self.part < 1 or self.margin < 0:
            raise ValueError(
                f"part={self.part:g}, margin={self.margin:g}: a share in (0, 1), and at least 0"
            )


@dataclass(frozen=True, kw_only=True)
class Task:
    """model: the dense one, unchanged. validate: a number that is better when higher, called in
    eval mode without gradients, on data that the final model is not judged by. recovery: of every
    trial; its learning rate is the middle of those tried. calibration: batches for criteria and
    the fit, the first of `train_data` where None.

    costs: "latency", "macs", "params", "size", "memory"; the shares of the space are of the first.
    measured: latency is measured beside the dense model's, not predicted from its timed modules.
    precisions: by name, what the space's names stand for. cache: where timings of the device are
    kept, in the search's own folder where None. early: None to let every trial end. about: what
    else the figures depend on, such as the data's name; a folder with another one is refused.
    """

    model: nn.Module
    example_inputs: Any
    train_data: Iterable[Any]
    validate: Validate
    recovery: FinetuneSettings
    loss_fn: LossFn | None = None
    calibration: Sequence[Any] | None = None
    costs: tuple[str, ...] = (LATENCY,)
    measured: bool = True
    device: Device = field(default_factory=Device)
    precisions: Mapping[str, Precision] = field(default_factory=lambda: {PLAIN: as_it_is})
    constraints: Constraints = field(default_factory=Constraints)
    cache: Path | None = None
    early: Early | None = field(default_factory=Early)
    about: str = ""

    def __post_init__(self) -> None:
        unknown = [name for name in self.costs if name not in COSTS]
        if unknown or not self.costs or len(set(self.costs)) < len(self.costs):
            raise ValueError(f"costs={self.costs!r}: one or more, each once, of {', '.join(COSTS)}")
        if self.constraints.blocks is not None:
            raise ValueError("a search cuts units; leave blocks out of the constraints")
        if self.steps < 1:
            raise ValueError(
                "the training data has no length; set steps_per_epoch of the recovery, so that "
                "every trial can have the same number of steps"
            )

    @property
    def steps(self) -> int:
        """Optimizer steps of a recovery, 0 where the data does not say."""
        epoch, limit = length(self.train_data), self.recovery.steps_per_epoch
        batches = 0 if epoch is None else ceil(epoch / self.recovery.accumulate)
        if limit is not None:
            batches = min(batches, limit) if batches else limit
        return self.recovery.epochs * batches

    def calibrating(self) -> Sequence[Any]:
        """Batches to calibrate on."""
        if self.calibration is not None:
            return self.calibration
        set_epoch_(self.train_data, 0)  # where an earlier search left it says nothing
        return list(islice(self.train_data, CALIBRATION_BATCHES))
