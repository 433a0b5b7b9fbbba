"""Dynamic sparse training: every so often the weakest weights of each layer go and others come.

A layer keeps its number of weights. The smallest magnitudes go; in their places come the weights
whose loss gradient is largest (RigL) or random ones (SET). New weights start at zero. The gradient
is that of the dense layer, which the mask sees as it flows back; no dense copy is trained.

Source: Evci et al., Rigging the Lottery, ICML 2020, algorithm 1, arXiv 1911.11134; Mocanu et al.,
Nature Communications 2018, arXiv 1707.04780 (SET: grow="random", decay="constant").
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from secateur.core.errors import TrainError
from secateur.criteria.matrices import generator_of
from secateur.masks.keys import Source
from secateur.masks.parametrization import Mask, laid_out, masked_places, original
from secateur.masks.selection import kept_by, smallest

GROW = ("gradient", "random")
DECAY = ("cosine", "constant")


class DynamicSparsity:
    """Moves the masks of `model` every `interval` steps before step `stop`.

    The model is masked before, for example by ``mask_(model, criterion="random",
    sparsity=erdos_renyi(model, sparsity=0.9))``. fraction: share of the kept weights that moves;
    under "cosine" it falls to 0 at `stop`. optimizer: its momentum of new weights becomes zero.
    Call `step_()` after every optimizer step, or give `train.Masking(schedule)` to `finetune`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        stop: int,
        interval: int = 100,
        fraction: float = 0.3,
        grow: str = "gradient",
        decay: str = "cosine",
        optimizer: Optimizer | None = None,
        seed: int = 0,
    ) -> None:
        """Raises: ValueError for a model without masks, and arguments out of range."""
        if grow not in GROW or decay not in DECAY:
            raise ValueError(
                f"grow is one of {', '.join(GROW)} and decay one of {', '.join(DECAY)}, not "
                f"{grow!r} and {decay!r}"
            )
        if interval < 1 or not 0 < fraction < 1:
            raise ValueError("interval is at least 1, and fraction lies in (0, 1)")
        self.masks: dict[str, tuple[Mask, nn.Parameter]] = {}
        for name, module, leaf, mask in masked_places(model):
            if all(mask is not other for other, _ in self.masks.values()):
                self.masks[name] = mask, original(module, leaf)
        if not self.masks:
            raise ValueError("the model has no masks to move; mask_(model, sparsity=0.9) first")
        self.stop, self.interval, self.fraction = stop, interval, fraction
        self.grow, self.decay, self.optimizer, self.seed = grow, decay, optimizer, seed
        self.step = 0
        self._gradients: dict[str, Tensor] = {}
        self._watch_()

    def fraction_at(self, step: int) -> float:
        """The share of the kept weights that moves at a step: ``a/2 (1 + cos(pi t / T_end))``."""
        if self.decay == "constant":
            return self.fraction
        return self.fraction / 2 * (1 + math.cos(math.pi * step / self.stop))

    def step_(self) -> None:
        """Count an optimizer step, and move the masks where it is due.

        Raises: TrainError when no gradient came by since the step before.
        """
        self.step += 1
        if self._due(self.step):
            for name, (mask, weight) in self.masks.items():
                self._move_(name, mask, weight)
        self._watch_()

    def state_dict(self) -> dict[str, Any]:
        """The step; masks are in the model's own state, momentum in the optimizer's."""
        return {"step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on after the step of `state`, on a model whose state was loaded."""
        self.step = int(state["step"])
        self._watch_()

    def _due(self, step: int) -> bool:
        return step % self.interval == 0 and step < self.stop

    def _watch_(self) -> None:
        """Keep the gradients of the next step if it is one that moves masks."""
        self._gradients = {}
        wanted = self.grow == "gradient" and self._due(self.step + 1)
        for name, (mask, _) in self.masks.items():
            mask.on_gradient = self._collector(name) if wanted else None

    def _collector(self, name: str) -> Any:
        def collect(gradient: Tensor) -> None:
            known = self._gradients.get(name)
            self._gradients[name] = gradient if known is None else known + gradient

        return collect

    @torch.no_grad()
    def _move_(self, name: str, mask: Mask, weight: nn.Parameter) -> None:
        """Drop and grow in one layer; as many weights stay."""
        before = mask.kept
        number = int(torch.count_nonzero(before))
        moving = min(round(self.fraction_at(self.step) * number), before.numel() - number)
        ranked = Source(name, weight.detach(), weight.dtype, kept=before)
        limit = smallest([ranked], before.numel() - number + moving)
        staying = kept_by(ranked, limit, 0)
        wanted = self._wanted(name, weight).detach()
        # what stays counts as masked here, so that it ranks below all that may come
        offered = Source(name, wanted, wanted.dtype, kept=~staying)
        growing = kept_by(offered, smallest([offered], before.numel() - moving), 0)
        new = growing & ~before
        weight[new] = 0
        for state in self._momentum(weight):
            state[new] = 0
        mask.kept = laid_out(staying | growing, weight)

    def _wanted(self, name: str, weight: nn.Parameter) -> Tensor:
        """What the places of a layer are ranked by when weights come."""
        if self.grow == "random":
            drawn = torch.rand(
                weight.shape, generator=generator_of(f"{name}@{self.step}", self.seed)
            )
            return torch.empty_like(weight).copy_(drawn)
        found = self._gradients.get(name)
        if found is None:
            raise TrainError(
                f"no gradient of {name} came by before step {self.step}; call step_() once after "
                "every optimizer step, load_state_dict(state) where a run is resumed, and leave "
                "frozen weights without a mask"
            )
        return found

    def _momentum(self, weight: nn.Parameter) -> list[Tensor]:
        if self.optimizer is None:
            return []
        states = self.optimizer.state.get(weight, {}).values()
        return [s for s in states if isinstance(s, Tensor) and s.shape == weight.shape]
