"""Gradual masking: the sparsity rises while the model trains, fast at first and slowly at the end.

``s_t = s_f + (s_i - s_f) (1 - (t - t_0) / (n dt))^3`` every dt steps. What is masked stays masked.
With a large interval it is iterative pruning: mask, train for a while, mask more.

Source: Zhu & Gupta, To prune, or not to prune, ICLR 2018 workshop, equation 1, arXiv 1710.01878.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.masks.masking import mask_
from secateur.masks.plan import MaskPlan


class GradualMasking:
    """Masks `model` more and more, from step `start` to step `stop`, every `interval` steps.

    sparsity, initial: at the end and at the start. power: 3 as in the paper, 1 rises evenly. how:
    of `mask_`, such as criterion="l1", scope="layer", skip=("fc",). Masks are put on at once, so
    that the model's buffers do not change while it trains; call `step_()` after every optimizer
    step, or give `train.Masking(schedule)` to `finetune`. The best epoch of a validation may be
    one of a lower sparsity: use restore_best=False.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        sparsity: float,
        stop: int,
        start: int = 0,
        interval: int = 100,
        initial: float = 0.0,
        power: float = 3.0,
        **how: Any,
    ) -> None:
        """Raises: ValueError for steps or shares out of order."""
        if not 0 <= initial <= sparsity < 1:
            raise ValueError(
                f"sparsity rises from initial to sparsity within [0, 1), not from {initial} to "
                f"{sparsity}"
            )
        if not 0 <= start < stop or interval < 1:
            raise ValueError(
                f"steps go from start to stop by interval, not from {start} to {stop} by {interval}"
            )
        self.model, self.how, self.step = model, how, 0
        self.start, self.stop, self.interval = start, stop, interval
        self.initial, self.sparsity, self.power = initial, sparsity, power
        self.plan: MaskPlan = mask_(model, sparsity=initial if start == 0 else 0.0, **how)

    def sparsity_at(self, step: int) -> float:
        """What is wanted after so many steps.

        >>> schedule = GradualMasking(nn.Linear(8, 8), sparsity=0.8, stop=100, interval=10)
        >>> [round(schedule.sparsity_at(step), 2) for step in (0, 50, 99, 100, 500)]
        [0.0, 0.7, 0.8, 0.8, 0.8]
        """
        if step < self.start:
            return 0.0
        left = 1 - min(1.0, (step - self.start) / (self.stop - self.start))
        share: float = self.sparsity + (self.initial - self.sparsity) * left**self.power
        return share

    def step_(self) -> None:
        """Count an optimizer step, and mask more where one is due."""
        self.step += 1
        done = self.step - self.start
        due = done >= 0 and (done % self.interval == 0 or self.step == self.stop)
        if due and self.step <= self.stop:
            self.plan = mask_(self.model, sparsity=self.sparsity_at(self.step), **self.how)

    def state_dict(self) -> dict[str, Any]:
        """The step; the masks are in the model's own state."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the step of `state`, on a model whose state was loaded."""
        self.step = int(state["step"])
