"""A plan within a measured latency: predict, cut, measure, correct, and again.

A prediction is a few per cent off where modules disturb each other in ways that single widths do
not show. Each candidate is therefore cut and measured beside the dense model, and what it came to
corrects the next prediction, until the measured share is the one asked for or a little less.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import nn

from secateur.core.budget import MEASURED, Budget, Limit
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.cost.counted import CostModel
from secateur.cost.energy import Energy
from secateur.cost.latency import Latency
from secateur.cost.runtimes.prepared import Prepared
from secateur.cost.timed import TimedCosts, Timings
from secateur.cut import cut
from secateur.search.energy_within import energy_limit, plan_within_energy
from secateur.search.liked_widths import ALIGNED, liked_width
from secateur.search.timing import Device, time_device
from secateur.select.constraints import Constraints
from secateur.select.plan import plan

TRIES = 6
ROUNDS = 15
SCREENING, MEASURING = 2.0, 20.0
"""Seconds of rounds at most: for a candidate, and then for one that is near the limit."""
NEAR = 0.1
STEP = 1.1
"""How far a correction goes that nothing bounds."""
CLOSE = 0.04
"""How far below the limit a candidate may be for the search to end."""


@runtime_checkable
class Planner(Protocol):
    """Makes a plan that meets a budget at these costs."""

    def __call__(
        self, *, budget: Budget, costs: CostModel, settings: Mapping[str, Any] | None
    ) -> Plan: ...


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
    energy: tuple[Energy, Energy] | None = None
    """Of the dense and of the cut model, where the budget speaks of energy."""

    @property
    def share(self) -> float:
        """Measured latency of the cut model, as a share of the dense one's."""
        return self.pruned.median_ms / self.dense.median_ms


def is_measured(budget: str | Budget) -> bool:
    """Whether a budget speaks of what has to be measured on a device: latency or energy."""
    return any(limit.metric in MEASURED for limit in Budget.parse(budget).limits)


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
    watts: float | None = None,
    **options: Any,
) -> Within:
    """A plan whose cut model meets a latency when it is measured, and every other limit as well.

    Where no ``multiple_of`` is asked for, the device is asked whether it likes multiples of
    sixteen. Widths of the other kind are tried as well where these come to nothing close.

    device: batch, threads and runtime; those of the example and of torch where None. cache: as for
    `time_device`. options: as for `plan`; and planner=, a `Planner` in its place, with the
    scores, widths and rules that it knows, such as that of an `Adapter`. The plan's costs hold the
    measured milliseconds.

    Energy is a latency here: joules as the hardware counts them, else `watts` x measured time.

    Raises: BudgetError when the budget cannot be met, naming the nearest that can; ValueError for a
    budget without a latency or an energy, or an energy with neither a counter nor watts.
    """
    planner: Planner | None = options.pop("planner", None)
    parsed, device = Budget.parse(budget), device or Device()
    timed: dict[str, Any] = {"device": device, "cache": cache}
    if energy_limit(parsed) is not None:
        how = {**timed, **options, "settings": settings, "planner": planner}
        again = partial(plan_within, model, graph, scores, example_inputs, **how)
        limits: dict[str, Any] = {"budget": parsed, "device": device, "watts": watts}
        return plan_within_energy(
            lambda latency: again(budget=latency), model, example_inputs, **limits
        )
    limit = latency_limit(parsed)
    if limit is None:
        raise ValueError(f"budget {parsed} has no latency or energy; write for example latency=50%")
    dense = _warm(device.prepare(model, example_inputs), example_inputs, device)
    judged = partial(_measured, dense, example_inputs=example_inputs, device=device, limit=limit)

    def road(step: int) -> _Road:
        how = options if step == asked else {**options, "multiple_of": step}
        timings = time_device(model, graph, example_inputs, multiple_of=step, **timed)
        made = planner or partial(plan, graph, scores, **how)
        planned = partial(made, budget=parsed, settings=settings)
        return _Road(
            lambda costs: judged(planned(costs=costs)), partial(_timed_costs, graph, timings), limit
        )

    rules = options.get("constraints") or Constraints()
    asked: int = options.get("multiple_of") or rules.multiple_of
    if asked > 1 or planner is not None:
        return _chosen(_walked(road, [asked]), limit)
    liked = liked_width(model, graph, example_inputs, **timed)
    steps = sorted((1, ALIGNED), key=lambda step: step != liked)
    return _chosen(_walked(road, steps), limit)


def _walked(road: Callable[[int], _Road], steps: Sequence[int]) -> list[tuple[float, Within]]:
    """The candidates of the first kind of widths, of the second where the first has none close.

    Raises: BudgetError where the rules allow none of any kind.
    """
    found: list[tuple[float, Within]] = []
    for step in steps:
        try:
            on = road(step)
            on.walk_to_end()
        except BudgetError:
            if found or step != min(steps):
                continue  # what some widths cannot, any widths may
            raise
        found += on.found
        if on.ended:
            break
    return found


def _chosen(found: Sequence[tuple[float, Within]], limit: Limit) -> Within:
    """The candidate nearest to the limit, one that meets it where there is any."""
    gap, best = min(found, key=lambda item: (item[0] > 0.0, abs(item[0])))
    if gap > CLOSE:
        raise BudgetError(
            f"{limit} was not met: of {len(found)} candidates the nearest measured "
            f"{best.pruned.median_ms:.3g} ms of {best.dense.median_ms:.3g} ms "
            f"({best.share:.1%}); ask for latency={100 * best.share:.0f}%"
        )
    return replace(best, candidates=len(found))


def _timed_costs(graph: Graph, timings: Timings, correction: float) -> TimedCosts:
    return TimedCosts(graph, timings, correction=correction)


class _Road:
    """Candidates of one kind of widths, each mended by the one before. found: by how much of the
    limit each was above it (negative: below), and the candidate."""

    def __init__(
        self,
        candidate: Callable[[TimedCosts], Within],
        timed: Callable[[float], TimedCosts],
        limit: Limit,
    ) -> None:
        self._candidate, self._timed, self._limit = candidate, timed, limit
        self._corrections = _Corrections()
        self.found: list[tuple[float, Within]] = []

    @property
    def ended(self) -> bool:
        """Whether the last candidate is as near as is wanted."""
        return -CLOSE <= self.found[-1][0] <= 0.0

    def walk(self) -> None:
        """One candidate more. Raises: BudgetError where the rules allow none."""
        one = self._candidate(self._timed(self._corrections.now))
        gap = _gap(self._limit, one)
        self.found.append((gap, one))
        self._corrections.learn(one.share / one.predicted, over=gap > 0.0)

    def walk_to_end(self) -> None:
        """Until one is as near as is wanted, or there were enough.

        Raises: BudgetError where the rules allow none that is within the limit.
        """
        self.walk()
        while len(self.found) < TRIES and not self.ended:
            try:
                self.walk()
            except BudgetError:  # the correction asks for more than the rules allow
                if any(gap <= CLOSE for gap, _ in self.found):
                    return
                raise


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


def _warm(dense: Prepared, example_inputs: Any, device: Device) -> Prepared:
    """The dense model, measured once, so that it is not warmed up beside every candidate."""
    first = _timed({"dense": dense}, example_inputs, device, seconds=0.0)
    return replace(dense, repeats=first["dense"].repeats)


def _measured(
    dense: Prepared, made: Plan, example_inputs: Any, device: Device, limit: Limit
) -> Within:
    """A candidate beside the dense model; for longer where that is slow and the limit is near."""
    ready = {"dense": dense, "pruned": device.prepare(cut(dense.model, made), example_inputs)}
    found = _candidate(made, ready, _timed(ready, example_inputs, device, seconds=SCREENING))
    if len(found.dense.samples_ms) < ROUNDS and abs(_gap(limit, found)) < NEAR:
        warm = {"dense": dense, "pruned": replace(ready["pruned"], repeats=found.pruned.repeats)}
        found = _candidate(made, warm, _timed(warm, example_inputs, device, seconds=MEASURING))
    return found


def _timed(
    ready: Mapping[str, Prepared], example_inputs: Any, device: Device, *, seconds: float
) -> dict[str, Latency]:
    return device.measure(
        ready,
        example_inputs,
        rounds=ROUNDS,
        seconds=seconds,
    )


def _candidate(made: Plan, ready: Mapping[str, Prepared], both: Mapping[str, Latency]) -> Within:
    before, after = made.before.latency_ms, made.after.latency_ms
    assert before is not None and after is not None
    whole, pruned = both["dense"], both["pruned"]
    note = (
        f"latency measured ({whole.runtime}, {whole.dtype}, batch {whole.batch}, "
        f"{whole.threads} threads, {whole.hardware}): "
        f"{pruned.median_ms / whole.median_ms:.1%} of the dense model's, "
        f"predicted {after / before:.1%}"
    )
    made = replace(
        made,
        notes=(*made.notes, note),
        before=replace(made.before, latency_ms=round(whole.median_ms, 6)),
        after=replace(made.after, latency_ms=round(pruned.median_ms, 6)),
    )
    return Within(made, ready["pruned"].model, whole, pruned, after / before)
