"""A plan within a measured latency: predict, cut, measure, correct, and again.

A prediction is a few per cent off where modules disturb each other in ways that single widths do
not show. Each candidate is therefore cut and measured beside the dense model, and what it came to
corrects the next prediction, until the measured share is the one asked for or a little less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.modes import evaluating
from secateur.core.plan import Plan, Scores
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.latency import Latency, measure_latency
from secateur.cost.runtimes import Prepared, prepare
from secateur.cost.timed import TimedCosts
from secateur.cut import cut
from secateur.search.timing import Device, time_device
from secateur.select.constraints import Constraints
from secateur.select.plan import plan

TRIES = 6
ROUNDS = 15
ALIGNED = 16
"""Widths that the kernels of many processors like: a vector register of float32."""
STEP = 1.1
"""How far a correction goes that nothing bounds."""
CLOSE = 0.04
"""How far below the limit a candidate may be for the search to end."""


@dataclass(frozen=True)
class Within:
    """What was found: the plan, the cut model, both measured side by side, the share of the dense
    latency that was predicted of it, and how many candidates were measured on the way."""

    plan: Plan
    model: nn.Module
    dense: Latency
    pruned: Latency
    predicted: float
    candidates: int = 1

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

    Where no ``multiple_of`` is asked for, widths of any number and multiples of sixteen are both
    timed and tried, and the kind that leaves more multiply-accumulates for the time is taken.

    device: batch, threads and runtime; those of the example and of torch where None. cache: as for
    `time_device`. options: as for `plan`. The plan's costs hold the measured milliseconds.

    Raises: BudgetError when the budget cannot be met, naming the nearest that can; ValueError for a
    budget without a latency.
    """
    parsed, device = Budget.parse(budget), device or Device()
    limit = latency_limit(parsed)
    if limit is None:
        raise ValueError(f"budget {parsed} has no latency; write for example latency=50%")
    dense = _prepared(model, example_inputs, device)

    def made(costs: TimedCosts, **more: Any) -> Plan:
        how = {**options, **more}
        return plan(graph, scores, budget=parsed, costs=costs, settings=settings, **how)

    def road(step: int, **more: Any) -> _Road:
        timings = time_device(
            model, graph, example_inputs, device=device, cache=cache, multiple_of=step
        )

        def candidate(correction: float) -> Within:
            costs = TimedCosts(graph, timings, correction=correction)
            return _measured(dense, made(costs, **more), example_inputs, device)

        return _Road(candidate, limit)

    rules = options.get("constraints") or Constraints()
    asked: int = options.get("multiple_of") or rules.multiple_of
    roads = [road(asked)]
    if asked == 1:
        roads += [_walked(road(ALIGNED, multiple_of=ALIGNED))]
    roads[0].walk()
    best = max((one for one in roads if one.found), key=_Road.worth)
    while len(best.found) < TRIES and not best.ended:
        best.walk()
    return _chosen(best, limit, sum(len(one.found) for one in roads))


def _chosen(road: _Road, limit: Limit, candidates: int) -> Within:
    """The candidate nearest to the limit, one that meets it where there is any."""
    gap, best = min(road.found, key=lambda item: (item[0] > 0.0, abs(item[0])))
    if gap > CLOSE:
        raise BudgetError(
            f"{limit} was not met: of {candidates} candidates the nearest measured "
            f"{best.pruned.median_ms:.3g} ms of {best.dense.median_ms:.3g} ms "
            f"({best.share:.1%}); ask for latency={100 * best.share:.0f}%"
        )
    return replace(best, candidates=candidates)


class _Road:
    """Candidates of one kind of widths, each mended by the one before. found: by how much of the
    limit each was above it (negative: below), and the candidate."""

    def __init__(self, candidate: Callable[[float], Within], limit: Limit) -> None:
        self._candidate, self._limit = candidate, limit
        self._corrections = _Corrections()
        self.found: list[tuple[float, Within]] = []

    @property
    def ended(self) -> bool:
        """Whether the last candidate is as near as is wanted."""
        return -CLOSE <= self.found[-1][0] <= 0.0

    def walk(self) -> None:
        """One candidate more. Raises: BudgetError where the rules allow none."""
        one = self._candidate(self._corrections.now)
        gap = _gap(self._limit, one)
        self.found.append((gap, one))
        self._corrections.learn(one.share / one.predicted, over=gap > 0.0)

    def worth(self) -> float:
        """Multiply-accumulates left for each millisecond of the first candidate."""
        one = self.found[0][1]
        return one.plan.after.macs / one.pruned.median_ms


def _walked(road: _Road) -> _Road:
    """After its first candidate, or without any where the rules and these widths allow none."""
    with suppress(BudgetError):
        road.walk()
    return road


class _Corrections:
    """What the next prediction is multiplied by: what the last candidate says, but between the
    largest that left it too slow and the smallest that made it too fast, for a device has steps."""

    def __init__(self) -> None:
        self.now = 1.0
        self._slow, self._fast = 0.0, math.inf

    def learn(self, wrong: float, *, over: bool) -> None:
        """wrong: measured over predicted, which had the correction in it."""
        if over:
            self._slow = max(self._slow, self.now)
        else:
            self._fast = min(self._fast, self.now)
        following = self.now * wrong
        if not self._slow < following < self._fast:
            low = self._slow if self._slow else self._fast / STEP
            high = self._fast if math.isfinite(self._fast) else self._slow * STEP
            following = math.sqrt(low * high)
        self.now = following


def _gap(limit: Limit, found: Within) -> float:
    """By how much of the limit a candidate's measured latency is above it; negative: below."""
    allowed = limit.absolute or found.dense.median_ms * (limit.fraction or 0.0)
    return found.pruned.median_ms / allowed - 1.0


def _prepared(model: nn.Module, example_inputs: Any, device: Device) -> Prepared:
    """The dense model, made ready once for all candidates."""
    inputs, _ = resize_batch(example_inputs, device.batch_size)
    with evaluating(model):
        inputs = moved(inputs, device_of(model))
        return prepare(model, inputs, runtime=device.runtime, threads=device.threads)


def _measured(dense: Prepared, made: Plan, example_inputs: Any, device: Device) -> Within:
    small = cut(dense.model, made)
    both = measure_latency(
        {"dense": dense, "pruned": small},
        example_inputs,
        batch_size=device.batch_size,
        threads=device.threads,
        rounds=ROUNDS,
        runtime=device.runtime,
    )
    before, after = made.before.latency_ms, made.after.latency_ms
    assert before is not None and after is not None
    whole, pruned = both["dense"], both["pruned"]
    note = (
        f"latency measured ({whole.runtime}, batch {whole.batch}, {whole.threads} threads, "
        f"{whole.hardware}): {pruned.median_ms / whole.median_ms:.1%} of the dense model's, "
        f"predicted {after / before:.1%}"
    )
    made = replace(
        made,
        notes=(*made.notes, note),
        before=replace(made.before, latency_ms=round(whole.median_ms, 6)),
        after=replace(made.after, latency_ms=round(pruned.median_ms, 6)),
    )
    return Within(made, small, whole, pruned, after / before)
