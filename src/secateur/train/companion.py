"""Companions: what goes along with a training and changes it, beside the plain steps.

Averaged weights, penalties, soft pruning and pruning while training are companions of `finetune`.
Each overrides the moments that it needs; its state is part of every checkpoint, so a run that is
killed and resumed ends with the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer

from secateur.core.copies import copied
from secateur.core.plan import Plan
from secateur.cut import cut_


@dataclass(slots=True)
class Training:
    """The training that a companion goes along with, as it stands.

    step: optimizer steps taken so far. total_steps: of the whole training, 0 when unknown.
    samples: seen so far. loss_scale: what gradients are multiplied by while `after_backward_` runs
    (1 except under float16). cuts: how often the model was made smaller. replicate: copies the
    model, wherever its parameters lie.
    """

    model: nn.Module
    optimizer: Optimizer
    total_steps: int
    step: int = 0
    epoch: int = 0
    samples: int = 0
    loss_scale: float = 1.0
    cuts: int = 0
    companions: Sequence[Companion] = field(default=(), repr=False)
    replicate: Callable[[nn.Module], nn.Module] = field(default=copied, repr=False)

    def cut_(self, plan: Plan) -> None:
        """Make the model smaller in the middle of the training, optimizer and companions with it.

        Raises: PlanMismatchError, CutError.
        """
        cut_(self.model, plan, optimizer=self.optimizer)
        self.cuts += 1
        for companion in self.companions:
            companion.after_cut_(self, plan)


class Companion:
    """Does nothing: override the moments that are wanted."""

    def refuses(self, *, sharded: bool) -> str | None:
        """Why it cannot go along where several ranks train together, each with its part of every
        batch, and sharded with a part of every parameter; None where it can."""
        return "it looks at whole parameters" if sharded else None

    def begin_(self, training: Training) -> None:
        """Before the first step; before `rebuild_` and `load_state_` where a run is resumed."""

    def after_backward_(self, training: Training) -> None:
        """When the gradients of a step are there, and before they are clipped and used."""

    def after_step_(self, training: Training) -> None:
        """After every optimizer step, before its checkpoint."""

    def after_epoch_(self, training: Training) -> None:
        """After every epoch, before it is validated."""

    def while_validating(self, training: Training) -> AbstractContextManager[Any]:
        """The context in which the model is validated and its best weights are kept."""
        return nullcontext()

    def after_cut_(self, training: Training, plan: Plan) -> None:
        """When a companion has made the model smaller by `plan`."""

    def end_(self, training: Training) -> None:
        """After the last step."""

    def state(self) -> Any:
        """What a checkpoint must hold: plain values and tensors, see `packing`."""
        return None

    def rebuild_(self, state: Any, training: Training) -> None:
        """Give model and optimizer the shapes that they had when `state` was taken."""

    def load_state_(self, state: Any, training: Training) -> None:
        """Stand where `state` was taken; model and optimizer do already."""
