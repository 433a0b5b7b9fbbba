"""First-order Taylor scores from a training's own gradients: no passes are made for them.

``I_u <- m I_u + (1 - m) sum over members |sum_r g_ur w_ur|`` after every backward.
Source: as `criteria/taylor.py` (Molchanov et al., CVPR 2019, arXiv 1906.10771, section 3, which
averages the importances of many batches); the average is exponential, so that it forgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import unit_rows
from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph, Group, Member
from secateur.core.plan import Plan, Scores


class RunningTaylor:
    """The average for one graph at a time; `renumber_` follows a cut."""

    def __init__(self, memory: int) -> None:
        self.keep = 1 - 1 / memory
        self.steps = 0
        self.scores: dict[str, Tensor] = {}

    def observe_(self, graph: Graph, model: nn.Module, *, loss_scale: float = 1.0) -> None:
        """Add the gradients that the parameters hold now.

        Raises: ScoreError when a group has no parameter with a gradient.
        """
        tensors = dict(named_tensors(model))
        products: dict[str, Tensor] = {}
        self.steps += 1
        for group in graph.free:
            members = [m for m in group.members if graph.tensors[m.tensor].is_parameter]
            if not members:
                continue
            total_U = torch.zeros(group.size)
            reached = [m for m in members if tensors[m.tensor].grad is not None]
            if not reached:
                raise _unreached(group, members)
            for member in reached:
                total_U += _gates(graph, group, member, tensors, products).abs()
            known = self.scores.get(group.id)
            score_U = total_U.double() / loss_scale
            self.scores[group.id] = (
                score_U if known is None else known * self.keep + score_U * (1 - self.keep)
            )

    def current(self) -> Scores:
        """The scores. Raises: ScoreError before the first gradients."""
        if not self.steps:
            raise ScoreError(
                "no gradients were seen before the first cut; begin later, or call "
                "pruner.observe_() after loss.backward() in a loop of your own"
            )
        return self.scores

    def renumber_(self, plan: Plan, before: Graph, after: Graph) -> None:
        """Follow a cut: the averages of the units that stay, under the groups' new names."""
        kept = {
            _place(group): self.scores[group.id][list(plan.keep.get(group.id, range(group.size)))]
            for group in before.free
            if group.id in self.scores
        }
        self.scores = {
            group.id: kept[_place(group)]
            for group in after.free
            if _place(group) in kept and len(kept[_place(group)]) == group.size
        }

    def state(self) -> dict[str, Any]:
        """As plain values and tensors."""
        return {"steps": self.steps, "scores": dict(self.scores)}

    def load_state_(self, state: Mapping[str, Any]) -> None:
        """Inverse of `state`."""
        self.steps, self.scores = state["steps"], dict(state["scores"])


def _gates(
    graph: Graph,
    group: Group,
    member: Member,
    tensors: Mapping[str, Tensor],
    products: dict[str, Tensor],
) -> Tensor:
    """Of a member the sum of gradient times weight over each unit, on the CPU."""
    name = member.tensor
    if name not in products:
        weight = tensors[name]
        assert weight.grad is not None
        products[name] = weight.detach().float() * weight.grad.float()
    product, dim = products[name], graph.tensors[name].dims[member.dim]
    others = [k for k in range(product.ndim) if k != member.dim]
    marginal = product.sum(others) if others else product
    if dim == (group.axis,):
        return marginal.cpu()
    total_U = torch.zeros(group.size)
    for rows in unit_rows(marginal, 0, dim, group.axis):
        total_U += rows.sum(1).cpu()
    return total_U


def _place(group: Group) -> frozenset[tuple[str, int]]:
    """Where a group's axis occurs: the same before and after a cut."""
    return frozenset((member.tensor, member.dim) for member in group.members)


def _unreached(group: Group, members: list[Member]) -> ScoreError:
    return ScoreError(
        f"no gradient reaches group {group.id!r} ({', '.join(m.tensor for m in members)}): its "
        "parameters are frozen or the loss does not depend on them; call requires_grad_(True) on "
        'one, use criterion="l2", or leave the group alone: options={"keep_modules": [...]}'
    )
