"""The short way: `prune` goes from a model and a budget to a proved smaller model in one call.

It is nothing but the pipeline's functions in order (trace, score, plan, cut, verify), so that a
reader who wants more control can write the same five lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from secateur.core.budget import Budget
from secateur.core.cost import Cost
from secateur.core.errors import CutError, ProofError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.core.proof import Proof
from secateur.core.world import ALONE, World
from secateur.criteria.blocks import score_blocks
from secateur.criteria.gradients import LossFn
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.cut import verify as prove
from secateur.cut.depth import keeping_places
from secateur.graph import trace
from secateur.graph.trace import ExampleInputs
from secateur.search.timing import cache_folder
from secateur.search.within import is_measured, plan_within
from secateur.select.plan import plan as make_plan
from secateur.storage.huggingface import expressible


@dataclass(frozen=True)
class PruneResult:
    """What `prune` found and made. `proof` is None when it was skipped."""

    model: nn.Module
    plan: Plan
    proof: Proof | None
    graph: Graph
    scores: Scores

    @property
    def before(self) -> Cost:
        """Cost of the dense model."""
        return self.plan.before

    @property
    def after(self) -> Cost:
        """Cost of the pruned model."""
        return self.plan.after


def prune(
    model: nn.Module,
    example_inputs: ExampleInputs,
    *,
    budget: str | Budget | None = None,
    criterion: str = "l2",
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
    verify: bool = True,
    strict: bool = False,
    huggingface: bool = False,
    **options: Any,
) -> PruneResult:
    """A smaller model within `budget`, with the plan that made it and the proof that it is right.

    With ``blocks=0.25`` (a share, or a number) whole residual blocks go first, and then units to
    the budget if there is one. Blocks are scored by "block_output" where there is `data`, otherwise
    by the criterion over their weights. Where a model counts on the number of its layers, the proof
    finds out, identities take the place of the blocks, and a note of the plan says so.

    budget: at most what may remain, for example "macs=50%"; "latency=50%" is of the time measured
    here, on the model's device, at the example's batch and with torch's present threads.
    criterion: a file of `criteria/`; "gradient" and "taylor" need `data` and `loss_fn`. options:
    fields of `secateur.select.constraints.Constraints`, such as ``selector="global", min_units=5,
    multiple_of=8``. huggingface: cut only what a transformers model's configuration can express,
    so that plain `from_pretrained` loads what `save` writes. The given model is unchanged.

    Raises: TraceError, ScoreError, BudgetError, CutError, ProofError.

    >>> import torch
    >>> dense = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, 2))
    >>> result = prune(dense, torch.zeros(1, 4), budget="macs=50%")
    >>> result.model[0].out_features, result.after.macs, result.proof.groups_checked
    (32, 192, 1)
    """
    graph = trace(model, example_inputs, strict=strict)
    if huggingface:
        graph = expressible(graph, model)
    blocks = options.get("blocks") is not None
    scores, settings = score_what_goes(
        graph,
        model,
        blocks=blocks,
        units=budget is not None or not blocks,
        criterion=criterion,
        data=data,
        loss_fn=loss_fn,
        seed=seed,
    )
    plan = _planned(model, example_inputs, graph, scores, budget, {**options, "settings": settings})
    if verify:
        return PruneResult(*_proved(model, plan, example_inputs, graph), graph, scores)
    return PruneResult(cut(model, plan), plan, None, graph, scores)


def _planned(
    model: nn.Module,
    example_inputs: ExampleInputs,
    graph: Graph,
    scores: Scores,
    budget: str | Budget | None,
    how: Mapping[str, Any],
) -> Plan:
    """The plan; where the budget speaks of latency or energy, after measuring."""
    if budget is None or not is_measured(budget):
        return make_plan(graph, scores, budget=budget, **how)
    cache = cache_folder()
    return plan_within(model, graph, scores, example_inputs, budget=budget, cache=cache, **how).plan


def score_what_goes(
    graph: Graph,
    model: nn.Module,
    *,
    blocks: bool,
    units: bool,
    criterion: str,
    data: Iterable[Any] | None = None,
    loss_fn: LossFn | None = None,
    seed: int = 0,
    world: World = ALONE,
) -> tuple[Scores, dict[str, Any]]:
    """Scores of residual blocks, of units, or of both, and what a plan records of them.

    Blocks are scored by "block_output" where there is data, otherwise by the criterion over their
    weights; by "random" in any case where that is the criterion. world: of ranks that score
    together, see `score`. Raises: ScoreError.
    """
    scores: dict[str, Tensor] = {}
    settings: dict[str, Any] = {"criterion": criterion, "seed": seed}
    if blocks:
        data = None if data is None else list(data)
        by = criterion if data is None or criterion == "random" else "block_output"
        settings["block_criterion"] = by
        scores |= score_blocks(graph, model, criterion=by, data=data, seed=seed, world=world)
    if units:
        how: dict[str, Any] = {"loss_fn": loss_fn, "seed": seed, "world": world}
        scores |= score(graph, model, criterion=criterion, data=data, **how)
    return scores, settings


def _proved(
    model: nn.Module, plan: Plan, example_inputs: ExampleInputs, graph: Graph
) -> tuple[nn.Module, Plan, Proof]:
    """The cut model with its proof; identities in place of blocks where a shorter list is wrong."""
    small = cut(model, plan)
    try:
        return small, plan, prove(model, small, plan, example_inputs, graph=graph)
    except (CutError, ProofError) as error:
        instead = keeping_places(plan, graph)
        if instead is None:
            raise
        note = f"identities stand in for {', '.join(instead.identity)}: with them gone, {error}"
    plan = replace(instead, notes=(*instead.notes, note))
    small = cut(model, plan)
    return small, plan, prove(model, small, plan, example_inputs, graph=graph)
