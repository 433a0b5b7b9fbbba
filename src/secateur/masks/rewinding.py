"""Rewinding: after a training the weights that are kept go back to what they were early on.

The lottery ticket hypothesis: train, mask the smallest weights, set the others back, train again.
Going back to the initial weights finds tickets in small networks, to those after the first few
hundred steps in larger ones.

Source: Frankle & Carbin, The Lottery Ticket Hypothesis, ICLR 2019, arXiv 1803.03635; rewinding to a
later step: Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020,
section 4, arXiv 1912.05671.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.masks.dense import dense_tensors


class Rewinding:
    """Keeps a copy of the weights of `model` as they are after `at_step` optimizer steps.

    Call `step_()` after every one, or give `train.Masking(rewinding)` to `finetune`; 0 keeps them
    as they are now. `rewind_()` puts them back, masks stay.

    >>> from secateur.masks import mask_
    >>> layer = nn.Linear(2, 2)
    >>> early, rewinding = layer.weight.tolist(), Rewinding(layer)
    >>> plan = mask_(layer, sparsity=0.0)
    >>> _ = layer.parametrizations.weight.original.data.zero_()  # training
    >>> rewinding.rewind_()
    >>> layer.weight.tolist() == early
    True
    """

    def __init__(self, model: nn.Module, *, at_step: int = 0) -> None:
        """Raises: ValueError for a negative step."""
        if at_step < 0:
            raise ValueError(f"at_step counts optimizer steps from 0, not {at_step}")
        self.model, self.at_step, self.step = model, at_step, 0
        self.saved: dict[str, Tensor] | None = None
        self._save_if_due_()

    def step_(self) -> None:
        """Count an optimizer step, and keep a copy of the weights if it is the one."""
        self.step += 1
        self._save_if_due_()

    @torch.no_grad()
    def rewind_(self) -> None:
        """Put the early weights and buffers back where the weights are kept now.

        Raises: TrainError before `at_step`, and for a model of other shapes.
        """
        if self.saved is None:
            raise TrainError(
                f"there is nothing to rewind to after {self.step} steps: the weights are kept at "
                f"step {self.at_step}; train on, or use a smaller at_step"
            )
        own = dense_tensors(self.model)
        other = [n for n in own if n not in self.saved or own[n].shape != self.saved[n].shape]
        if other or own.keys() != self.saved.keys():
            raise TrainError(
                f"the kept weights are another model's: {(other or ['names'])[0]} differs; rewind "
                "the model that they are of"
            )
        for name, tensor in own.items():
            tensor.copy_(self.saved[name])

    def state_dict(self) -> dict[str, Any]:
        """Step and weights."""
        return {"step": self.step, "saved": self.saved}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken."""
        self.step, self.saved = int(state["step"]), state["saved"]

    def _save_if_due_(self) -> None:
        if self.step == self.at_step:
            own = dense_tensors(self.model)
            self.saved = {name: tensor.detach().clone() for name, tensor in own.items()}


def ticket_sparsities(sparsity: float, *, rounds: int) -> list[float]:
    """The sparsity after each round, the same share of what is left going in each.

    >>> [round(share, 3) for share in ticket_sparsities(0.488, rounds=3)]
    [0.2, 0.36, 0.488]
    """
    if rounds < 1 or not 0 < sparsity < 1:
        raise ValueError("rounds is at least 1 and sparsity lies in (0, 1)")
    return [1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds + 1)]
