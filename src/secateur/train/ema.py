"""An exponential moving average of the weights: validated with, and what the training ends with.

``m <- d m + (1 - d) w`` after every step, over parameters and floating-point buffers alike; other
buffers are those of the last step.
Source: Polyak & Juditsky, SIAM J. Control Optim. 1992, with exponential weights. The warm-up,
``d_t = min(d, (1 + t) / (10 + t))``, is TensorFlow's `ExponentialMovingAverage(num_updates)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from secateur.core.plan import Plan
from secateur.cut import cut_
from secateur.train.companion import Companion, Training
from secateur.train.snapshot import restore_, snapshot, tensors_of


class Ema(Companion):
    """Averaged weights as a companion of `finetune`.

    decay: d. warmup: start with a short memory, so that the average does not hang on to the first
    weights of a short training.
    """

    def __init__(self, decay: float = 0.999, *, warmup: bool = True) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must be in (0, 1), for example 0.999, not {decay}")
        self.decay, self.warmup = decay, warmup
        self.steps = 0
        self._mean: nn.Module | None = None

    @property
    def mean(self) -> nn.Module:
        """A module like the model that holds the averages."""
        assert self._mean is not None, "begin_ comes first"
        return self._mean

    def refuses(self, *, sharded: bool) -> str | None:
        return None

    def begin_(self, training: Training) -> None:
        self.steps, self._mean = 0, training.replicate(training.model)

    def after_step_(self, training: Training) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.decay
        own = tensors_of(training.model)
        with torch.no_grad():
            for name, mean in tensors_of(self.mean).items():
                if mean.is_floating_point():
                    mean.lerp_(own[name], 1 - decay)
                else:
                    mean.copy_(own[name])

    @contextmanager
    def while_validating(self, training: Training) -> Iterator[None]:
        """The averages in the model, and the model's own weights back afterwards."""
        own = {name: t.detach().clone() for name, t in tensors_of(training.model).items()}
        restore_(training.model, tensors_of(self.mean))
        try:
            yield
        finally:
            restore_(training.model, own)

    def after_cut_(self, training: Training, plan: Plan) -> None:
        cut_(self.mean, plan)

    def end_(self, training: Training) -> None:
        restore_(training.model, tensors_of(self.mean))

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "mean": snapshot(self.mean)}

    def load_state_(self, state: dict[str, Any], training: Training) -> None:
        self.steps = state["steps"]
        self._mean = training.replicate(training.model)
        restore_(self._mean, state["mean"])
