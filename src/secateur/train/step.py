"""One optimizer step: learning rate, forward and backward over its batches, clipping, update.

A loss (and, where clipped, a gradient) that is not finite raises before the weights are touched.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from secateur.core.errors import TrainError
from secateur.engines.parallel.none import WHOLE
from secateur.engines.shares import BY_SAMPLES, Weighing
from secateur.engines.training import Moment, Parallel
from secateur.train.batches import to_device
from secateur.train.companion import Companion, Training
from secateur.train.objective import Objective
from secateur.train.precision import MixedPrecision
from secateur.train.schedules import learning_rate_factor
from secateur.train.settings import FinetuneSettings


class NotFinite(Exception):
    """A loss, gradient, weight or metric is NaN or infinite. Caught within a run."""


@dataclass(frozen=True, slots=True)
class Stepper:
    """What every step of a run shares; `training` knows the model and its optimizer. parallel: the
    processes that share the steps. weighing: what the loss is a mean over. learnt: what is trained
    beside the model."""

    training: Training
    objective: Objective
    precision: MixedPrecision
    settings: FinetuneSettings
    parallel: Parallel = WHOLE
    weighing: Weighing = BY_SAMPLES
    learnt: Sequence[nn.Parameter] = ()

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        return self.training.model

    @property
    def optimizer(self) -> Optimizer:
        """What trains it."""
        return self.training.optimizer

    @property
    def companions(self) -> Sequence[Companion]:
        """What goes along."""
        return self.training.companions

    def take_step_(self, batches: Sequence[Any], *, step: int) -> float:
        """Optimizer step number `step` (from 0) over `batches`; returns their mean loss.

        Raises: NotFinite.
        """
        self._set_learning_rate_(step)
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part, batch in enumerate(batches):
            last = part + 1 == len(batches)
            total += self._gradients_(batch, Moment(self.seed, step, part, last), of=len(batches))
        self.parallel.after_backward_(self.model, self.objective, self.learnt)
        total = finite(self.parallel.total(total, step=step), "loss")
        if self.companions:
            self.training.loss_scale = self.precision.scaler.get_scale()
        for companion in self.companions:
            companion.after_backward_(self.training)
        self._update_()
        return total / len(batches)

    def _gradients_(self, batch: Any, moment: Moment, *, of: int) -> float:
        """Add those of one of a step's `of` batches; this rank's part of its loss."""
        share = self.parallel.share(batch, self.weighing)
        with self.parallel.computing(self.objective, share, moment) as objective:
            with self.precision.autocast():
                loss = objective(self.model, to_device(share.batch, self.precision.device))
            value = loss.item()
            if self.parallel.world.size == 1:  # else all ranks must find it out, after the step
                finite(value, "loss")
            torch.autograd.backward(self.precision.scaler.scale(loss / (of / share.factor)))
        return value * share.weight

    @property
    def seed(self) -> int:
        """Of the random numbers of a step, the same on every rank."""
        return torch.initial_seed() if self.settings.seed is None else self.settings.seed

    @property
    def lr(self) -> float:
        """The learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _update_(self) -> None:
        scaler = self.precision.scaler
        if self.settings.clip_norm is not None:
            scaler.unscale_(self.optimizer)
            trained = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = self.parallel.clip_(self.model, trained, max_norm=self.settings.clip_norm)
            if not scaler.is_enabled():  # under float16 the scaler skips such a step by itself
                finite(norm, "gradient norm")
        scaler.step(self.optimizer)
        scaler.update()

    def _set_learning_rate_(self, step: int) -> None:
        settings = self.settings
        if settings.schedule == "constant" and not settings.warmup:
            return  # the groups' own rates stand, also those that a scheduler of the user sets
        factor = learning_rate_factor(
            settings.schedule, step=step, total=self.training.total_steps, warmup=settings.warmup
        )
        for group in self.optimizer.param_groups:
            lr = group["initial_lr"] * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr


def prepared_optimizer(
    model: nn.Module,
    settings: FinetuneSettings,
    optimizer: Optimizer | None,
    *,
    learnt: Sequence[nn.Parameter] = (),
) -> Optimizer:
    """The optimizer that the settings name, or the user's own after a check.

    learnt: parameters of the objective, trained along as the last parameter group.
    Raises: TrainError when nothing can be trained, or the optimizer holds other parameters.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise TrainError(
            f"{type(model).__name__} has no parameter that requires a gradient; "
            "call model.requires_grad_(True), or skip the recovery"
        )
    if optimizer is None:
        optimizer = _named_optimizer(trainable, settings)
    own = {id(parameter) for parameter in model.parameters()}
    held = [p for group in optimizer.param_groups for p in group["params"]]
    strangers = sum(id(parameter) not in own for parameter in held)
    if strangers:
        raise TrainError(
            f"{strangers} of the optimizer's {len(held)} parameters are not the model's, so "
            "stepping would not train it. Make the optimizer from model.parameters() after the "
            "cut, or hand it to the cut, cut_(model, plan, optimizer=optimizer), to carry it along"
        )
    if learnt:
        optimizer.add_param_group({"params": list(learnt), "lr": settings.lr})
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", float(group["lr"]))
    return optimizer


def without_learnt_(optimizer: Optimizer, learnt: Sequence[nn.Parameter]) -> None:
    """Take the objective's parameters, and their state, out of the optimizer again."""
    if learnt:
        optimizer.param_groups.pop()
    for parameter in learnt:
        optimizer.state.pop(parameter, None)


def _named_optimizer(parameters: Iterable[nn.Parameter], settings: FinetuneSettings) -> Optimizer:
    if settings.optimizer == "adamw":
        return AdamW(parameters, lr=settings.lr, weight_decay=settings.weight_decay)
    return SGD(
        parameters,
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )


def finite(value: float, what: str) -> float:
    """The value. Raises: NotFinite that says what it was."""
    if not math.isfinite(value):
        raise NotFinite(f"the {what} became {value}")
    return value


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """State and settings of the optimizer as plain values and tensors."""
    return {"class": type(optimizer).__qualname__, **optimizer.state_dict()}


def load_optimizer_(optimizer: Optimizer, saved: dict[str, Any]) -> None:
    """Set an optimizer to a saved state.

    Raises: TrainError when it is another kind of optimizer.
    """
    name = type(optimizer).__qualname__
    if saved["class"] != name:
        raise TrainError(
            f"the checkpoint was made with {saved['class']} and the optimizer is {name}; "
            f"resume with {saved['class']}, or choose another checkpoint_dir"
        )
    try:
        optimizer.load_state_dict({key: saved[key] for key in ("state", "param_groups")})
    except ValueError as error:
        raise TrainError(
            f"the checkpoint's optimizer does not fit this one ({error}); make it with the same "
            "parameter groups as before, or choose another checkpoint_dir"
        ) from error
