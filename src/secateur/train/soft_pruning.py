"""Soft pruning: after every epoch the least important units are set to zero, and may grow back.

What produces a unit (filters and biases) becomes zero, while what reads it stays, so that gradients
still reach it and a unit that turns out to matter comes back. After the last epoch `cut` removes
those that are zero then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from secateur.core.budget import Budget
from secateur.core.errors import TrainError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut.apply import kept_of
from secateur.select.plan import plan as make_plan
from secateur.train.companion import Companion, Training

OUTPUTS_SECOND = (nn.Embedding, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Modules whose weight has what they put out in dimension 1."""


class SoftPruning(Companion):
    """Zeroes after every epoch the units that a plan to `budget` would remove now; see `plan`.

    options: fields of `secateur.select.constraints.Constraints`, such as ``keep=0.5`` in place of
    a budget. criterion: one that looks at weights alone.
    Source: He et al., Soft Filter Pruning, IJCAI 2018, algorithm 1, arXiv 1808.06866. Deviation:
    filters that one addition couples are zeroed together, by what all of them are worth.
    """

    def __init__(
        self,
        graph: Graph,
        *,
        budget: str | Budget | None = None,
        criterion: str = "l2",
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.graph, self.budget, self.options = graph, budget, options
        self.criterion, self.seed = criterion, seed
        self._plan: Plan | None = None

    @property
    def plan(self) -> Plan:
        """The plan of the last epoch: `cut(model, soft.plan)` removes what is zero now.

        Raises: TrainError before the first epoch's end.
        """
        if self._plan is None:
            raise TrainError("no epoch has ended yet, so soft pruning has no plan; train first")
        return self._plan

    def after_epoch_(self, training: Training) -> None:
        model = training.model
        scores = score(self.graph, model, criterion=self.criterion, seed=self.seed)
        recorded = {"criterion": self.criterion, "seed": self.seed}
        self._plan = make_plan(
            self.graph, scores, budget=self.budget, settings=recorded, **self.options
        )
        zero_producers_(model, self._plan)

    def after_cut_(self, training: Training, plan: Plan) -> None:
        raise TrainError(
            "the model was cut while soft pruning was at work on it; use one or the other"
        )

    def state(self) -> dict[str, Any]:
        return {"plan": None if self._plan is None else self._plan.to_json()}

    def load_state_(self, state: Mapping[str, Any], training: Training) -> None:
        self._plan = None if state["plan"] is None else Plan.from_json(state["plan"])


def zero_producers_(model: nn.Module, plan: Plan) -> None:
    """Set the weights and biases that produce the removed units to zero; norms are left alone."""
    kept, owners = kept_of(plan), dict(model.named_modules())
    with torch.no_grad():
        for name, tensor in named_tensors(model):
            path = name.rpartition(".")[0]
            matrix = getattr(owners[path], "weight", None)
            norm = isinstance(matrix, torch.Tensor) and matrix.ndim < 2
            if name not in plan.tensors or norm or not isinstance(tensor, nn.Parameter):
                continue
            dim = 1 if isinstance(owners[path], OUTPUTS_SECOND) and tensor.ndim > 1 else 0
            indices = kept(name)[dim]
            if indices is not None:
                gone = torch.ones(tensor.shape[dim], dtype=torch.bool)
                gone[indices] = False
                tensor.index_fill_(dim, gone.nonzero().flatten().to(tensor.device), 0)
