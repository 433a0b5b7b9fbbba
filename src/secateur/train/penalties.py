"""Penalties that make units small while a model trains, so that less is lost when they are cut.

Each is a companion of `finetune` that adds its gradient after `backward`; the loss that is logged
is the task's own. They see the groups of a graph, so what is removed together shrinks together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from secateur.core.errors import TrainError
from secateur.core.fingerprint import fingerprint
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.train.companion import Companion, Training
from secateur.train.unit_sites import parameters_of, shrunk_graph, unit_sites

TINY = 1e-12


class L1(Companion):
    """``strength sum |w|`` over all weights of at least two dimensions: single weights get small.

    Source: Han et al., NeurIPS 2015, section 3.1, arXiv 1506.02626.
    """

    def __init__(self, strength: float) -> None:
        self.strength = _positive("strength", strength)

    def refuses(self, *, sharded: bool) -> str | None:
        return None

    def after_backward_(self, training: Training) -> None:
        for weight in training.model.parameters():
            if weight.grad is not None and weight.ndim > 1:
                weight.grad.add_(weight.detach().sign(), alpha=self.strength * training.loss_scale)


class GroupLasso(Companion):
    """``strength sum_u sqrt(n_u) || w_u ||`` over the units u of every free group, w_u being all
    n_u weights that are removed with a unit: whole units get small.

    Source: Wen et al., NeurIPS 2016, eq. 2, arXiv 1608.03665; the root of the size is that of
    Yuan & Lin 2006. Deviation: a unit is everything that is coupled, not one layer's filter.
    """

    def __init__(self, graph: Graph, strength: float) -> None:
        self.graph, self.strength = graph, _positive("strength", strength)
        self.sites = unit_sites(graph)

    def begin_(self, training: Training) -> None:
        _check_model(self.graph, training)

    def after_backward_(self, training: Training) -> None:
        tensors = parameters_of(training.model)
        for sites in self.sites.values():
            squares_U, count_U = sites.squares(tensors)
            factor_U = self.strength * (count_U / squares_U.clamp_min(TINY)).sqrt()
            # the slope at zero is taken to be zero: what is gone is not pushed about
            factor_U[squares_U <= TINY] = 0
            sites.add_to_gradients_(tensors, factor_U * training.loss_scale)

    def after_cut_(self, training: Training, plan: Plan) -> None:
        self.graph = shrunk_graph(self.graph, plan)
        self.sites = unit_sites(self.graph)


class GrowingPenalty(Companion):
    """``lambda / 2 || w_u ||^2`` on the units that a plan removes, with a lambda that grows: they
    hand over what they do to the others before they are cut, by `cut(model, plan)`.

    plan: made for the model before training. Every `every` steps lambda grows by `increase`, up to
    `ceiling`. Source: Wang et al., Neural Pruning via Growing Regularization (GReg-1), ICLR 2021,
    section 3.1, arXiv 2012.09243. Deviation: all weights that go with a unit, not a filter alone.
    """

    def __init__(
        self,
        graph: Graph,
        plan: Plan,
        *,
        increase: float = 1e-4,
        every: int = 10,
        ceiling: float = 1.0,
    ) -> None:
        self.graph, self.plan, self.every = graph, plan, every
        self.increase, self.ceiling = _positive("increase", increase), _positive("ceiling", ceiling)
        if every < 1:
            raise ValueError(f"every must be at least 1 step, not {every}")
        if plan.removed or plan.graph_hash != graph.hash:
            raise TrainError(
                "a growing penalty needs a plan over units that was made for this graph: "
                "plan(graph, scores, budget=...)"
            )
        self.steps = 0
        self.sites = {id: s for id, s in unit_sites(graph).items() if id in plan.keep}
        self.going = {id: _going(s.units, plan.keep[id]) for id, s in self.sites.items()}

    @property
    def strength(self) -> float:
        """lambda now."""
        return min(self.ceiling, self.increase * (1 + self.steps // self.every))

    def begin_(self, training: Training) -> None:
        self.steps = 0
        _check_model(self.graph, training)

    def after_backward_(self, training: Training) -> None:
        tensors = parameters_of(training.model)
        for id, sites in self.sites.items():
            device = tensors[sites.sites[0].tensor].device
            factor_U = self.going[id].to(device) * self.strength * training.loss_scale
            sites.add_to_gradients_(tensors, factor_U)
        self.steps += 1

    def after_step_(self, training: Training) -> None:
        tensors = parameters_of(training.model)
        for id, sites in self.sites.items():
            sites.flush_(tensors, self.going[id])

    def after_cut_(self, training: Training, plan: Plan) -> None:
        raise TrainError(
            "the model was cut while a growing penalty was at work on the units of a plan, which "
            "does not fit the smaller model; use one or the other"
        )

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_(self, state: Mapping[str, Any], training: Training) -> None:
        self.steps = state["steps"]


def _going(units: int, kept: tuple[int, ...]) -> Tensor:
    """1 for the units that go, 0 for those that stay."""
    going_U = torch.ones(units)
    going_U[list(kept)] = 0
    return going_U


def _check_model(graph: Graph, training: Training) -> None:
    if graph.fingerprint != fingerprint(training.model):
        raise TrainError(
            "the penalty's graph is another model's; trace this one: trace(model, example_inputs)"
        )


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be positive, not {value}")
    return value
