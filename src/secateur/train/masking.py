"""Schedules of masks as companions of a training: their step is part of every checkpoint."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from secateur.masks import DynamicSparsity
from secateur.train.companion import Companion, Training


@runtime_checkable
class MaskSchedule(Protocol):
    """What `masks.GradualMasking`, `masks.DynamicSparsity` and `masks.Rewinding` have."""

    def step_(self) -> None: ...

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Masking(Companion):
    """Takes a schedule of masks along: ``finetune(model, ..., companions=[Masking(schedule)])``."""

    def __init__(self, schedule: MaskSchedule) -> None:
        self.schedule = schedule

    def refuses(self, *, sharded: bool) -> str | None:
        """Masks that grow by gradients would see those of this rank's rows alone."""
        if isinstance(self.schedule, DynamicSparsity) and self.schedule.grow == "gradient":
            return 'masks grow where this rank\'s gradients are large; use grow="random"'
        return "it looks at whole parameters" if sharded else None

    def begin_(self, training: Training) -> None:
        """A schedule that moves masks sets the momentum of new weights to zero."""
        if isinstance(self.schedule, DynamicSparsity) and self.schedule.optimizer is None:
            self.schedule.optimizer = training.optimizer

    def after_step_(self, training: Training) -> None:
        """One step of the schedule."""
        self.schedule.step_()

    def state(self) -> Any:
        """Of the schedule."""
        return self.schedule.state_dict()

    def load_state_(self, state: Any, training: Training) -> None:
        """Put the schedule where it was; the model has its masks already."""
        self.schedule.load_state_dict(state)
