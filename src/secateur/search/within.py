"""A plan within a measured latency: predict, cut, measure, correct, and again.

A prediction is a few per cent off where modules disturb each other in ways that single widths do
not show. Each candidate is therefore cut and measured beside the dense model, and what it came to
corrects the next prediction, until the measured share is the one asked for or a little less.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.cost.latency import Latency, measure_latency
from secateur.cost.timed import TimedCosts
from secateur.cut import cut
from secateur.search.timing import Device, time_device
from secateur.select.plan import plan

TRIES = 6
ROUNDS = 15
CLOSE = 0.04
"""How far below the limit a candidate may be for the search to end."""


@dataclass(frozen=True)
class Within:
    """What was found: the plan, the cut model, both measured side by side, and how well the last
    prediction did (predicted over measured)."""

    plan: Plan
    model: nn.Module
    dense: Latency
    pruned: Latency
    predicted: float

    @property
    def share(self) -> float:
        """Measured latency of the cut model, as a share of the dense one's."""
        return self.pruned.median_ms / self.dense.median_ms


def latency_limit(budget: Budget) -> Limit | None:
    """The latency in a budget, if it speaks of any."""
    return next((limit for limit in budget.limits if limit.metric == "latency"), None)


def plan_within(
    model: nn.Module,
    graph: Graph,
    scores: Scores,
    example_inputs: Any,
    *,
    budget: str | Budget,
    device: Device | None = None,
    settings: Mapping[str, Any] | None = None,
    cache: Path | None = None,
    **options: Any,
) -> Within:
    """A plan whose cut model meets a latency when it is measured, and every other limit as well.

    device: batch and threads; those of the example and of torch where None. cache: as for
    `time_device`. options: as for `plan`. The plan's costs hold the measured milliseconds.

    Raises: BudgetError when the budget cannot be met, naming the nearest that can; ValueError for a
    budget without a latency.
    """
    parsed, device = Budget.parse(budget), device or Device()
    limit = latency_limit(parsed)
    if limit is None:
        raise ValueError(f"budget {parsed} has no latency; write for example latency=50%")
    timings = time_device(model, graph, example_inputs, device=device, cache=cache)
    correction = 1.0
    found: list[tuple[float, Within]] = []
    for _ in range(TRIES):
        costs = TimedCosts(graph, timings, correction=correction)
        made = plan(graph, scores, budget=parsed, costs=costs, settings=settings, **options)
        one = _measured(model, made, example_inputs, device)
        gap = _gap(limit, one)
        found.append((gap, one))
        if -CLOSE <= gap <= 0.0:
            break
        correction *= one.share / one.predicted
    best = min(found, key=lambda item: (item[0] > 0.0, abs(item[0])))[1]
    if _gap(limit, best) > CLOSE:
        raise BudgetError(
            f"{limit} was not met: of {len(found)} candidates the nearest measured "
            f"{best.pruned.median_ms:.3g} ms of {best.dense.median_ms:.3g} ms "
            f"({best.share:.1%}); ask for latency={100 * best.share:.0f}%"
        )
    return best


def _gap(limit: Limit, found: Within) -> float:
    """By how much of the limit a candidate's measured latency is above it; negative: below."""
    allowed = limit.absolute or found.dense.median_ms * (limit.fraction or 0.0)
    return found.pruned.median_ms / allowed - 1.0


def _measured(model: nn.Module, made: Plan, example_inputs: Any, device: Device) -> Within:
    small = cut(model, made)
    both = measure_latency(
        {"dense": model, "pruned": small},
        example_inputs,
        batch_size=device.batch_size,
        threads=device.threads,
        rounds=ROUNDS,
    )
    before, after = made.before.latency_ms, made.after.latency_ms
    assert before is not None and after is not None
    dense, pruned = both["dense"], both["pruned"]
    note = (
        f"latency measured: {pruned.median_ms / dense.median_ms:.1%} of the dense model's at batch "
        f"{dense.batch}, {dense.threads} threads, {dense.hardware} (predicted {after / before:.1%})"
    )
    made = replace(
        made,
        notes=(*made.notes, note),
        before=replace(made.before, latency_ms=round(dense.median_ms, 6)),
        after=replace(made.after, latency_ms=round(pruned.median_ms, 6)),
    )
    return Within(made, small, dense, pruned, after / before)
