"""What a budget of latency can come to on this device and runtime, before any work is done.

A forward takes its time in work that cuts shrink, in calls that stay, and in modules that no cut
changes. The smallest model that the rules permit is cut and measured: no plan gets below it. What
stands here is told before a plan is made or a training begins, in figures and in plain words.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.budget import Budget
from secateur.core.copies import copied
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.cost.batch import resize_batch
from secateur.cost.clocks import own_times
from secateur.cost.timed import LatencyModel, Sample, Shares, TimedCosts, Timings
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.search.liked_widths import liked_width
from secateur.search.timing import Device, time_device
from secateur.search.within import latency_limit
from secateur.select.constraints import Constraints
from secateur.select.plan import plan

LITTLE = 1e-9
"""A share of units so small that the rules alone say how many stay."""
ROUNDS, SECONDS = 9, 10.0
SLACK = 0.03
"""Of a limit: what two measurements of one model may differ by."""
STAYS = 0.35
"""A least reachable share from which on a model is said to be bound by what cuts leave."""
MANY_ZEROS = 0.2


@dataclass(frozen=True)
class Reachable:
    """dense_ms: of a forward, as measured. shares: what it is made of. least: of the smallest model
    that the rules permit, as a share of the dense latency, measured. half_macs: what half of the
    multiply-accumulates should come to, predicted; None where the rules do not permit it. error:
    the predictions' own estimate of how far they are off. conditions: of the measurements.
    zeros: share of the dense model's weights that are zeros, and zeros_time: its latency as a share
    of what it takes with other numbers in their place; None where there are few. smallest: what the
    modules of the smallest model take, beside the timings of the dense one.
    """

    dense_ms: float
    shares: Shares
    least: float
    half_macs: float | None
    error: float | None
    conditions: Mapping[str, str]
    zeros: float = 0.0
    zeros_time: float | None = None
    smallest: Sample | None = None

    @property
    def bound_by_calls(self) -> bool:
        """Whether most of the time stays whatever units are removed."""
        return self.least >= STAYS

    def check(self, budget: str | Budget) -> None:
        """Raises: BudgetError for a latency below the least reachable, with what to ask for."""
        fault = self.fault(budget)
        if fault is not None:
            raise BudgetError(fault)

    def fault(self, budget: str | Budget) -> str | None:
        """Why a budget's latency is out of reach, None where it is not."""
        limit = latency_limit(Budget.parse(budget))
        if limit is None:
            return None
        wanted = (limit.absolute or 0.0) / self.dense_ms or limit.fraction or 0.0
        if wanted >= self.least * (1.0 - SLACK):
            return None
        asked = str(limit) if limit.absolute is None else f"latency={limit.absolute:g}ms"
        return (
            f"{asked} cannot be reached here: the smallest model that the rules permit measured "
            f"{self.least:.1%} of the dense model's {self.dense_ms:.3g} ms ({self.where}); ask for "
            f"latency={100 * self.least**0.9:.0f}% or more{self._instead()}"
        )

    @property
    def where(self) -> str:
        """The conditions in words."""
        said = self.conditions
        threads = "1 thread" if said["threads"] == "1" else f"{said['threads']} threads"
        return f"{said['runtime']}, batch {said['batch']}, {threads}, {said['hardware']}"

    def lines(self) -> tuple[str, ...]:
        """The verdict in words, most important first."""
        shares = self.shares
        half = "" if self.half_macs is None else f" Half the MACs should take {self.half_macs:.0%}."
        found = [
            f"reachable here ({self.where}): down to {self.least:.0%} of {self.dense_ms:.3g} ms, "
            f"which the smallest model that the rules permit measured.{half}",
            f"of that time {shares.work:.0%} is work that cuts shrink, {shares.calls:.0%} calls "
            f"that stay, {shares.unchanged:.0%} modules that no cut changes.",
        ]
        if self.bound_by_calls:
            found.append(
                f"{self.least:.0%} of the time stays whatever units go, most of it calls of small "
                f"layers: removing units gains little{self._instead()}."
            )
        if self.zeros_time is not None:
            found.append(
                f"{self.zeros:.0%} of the weights are zeros and this runtime computes with them: "
                f"the model takes {self.zeros_time:.0%} of what it takes with other numbers in "
                "their place. Cut units to make it faster, or serve it by a runtime that has "
                "sparse kernels."
            )
        return tuple(found)

    def to_json(self) -> dict[str, Any]:
        """Fields, and the words."""
        return asdict(self) | {"said": list(self.lines())}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Reachable:
        """Inverse of `to_json`."""
        kept = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        kept["shares"] = Shares(**body["shares"])
        if kept.get("smallest") is not None:
            kept["smallest"] = Sample.from_json(kept["smallest"])
        return cls(**kept)

    def _instead(self) -> str:
        """What else makes such a model faster."""
        ways = []
        if self.conditions["runtime"] == "eager":
            ways.append("a runtime of fewer calls (onnxruntime, compile)")
        if int(self.conditions["batch"]) < 16:
            ways.append("a larger batch")
        return f"; what helps is {' or '.join(ways)}" if ways else ""


def reachable(
    model: nn.Module,
    graph: Graph,
    example_inputs: Any,
    *,
    device: Device | None = None,
    constraints: Constraints | None = None,
    cache: Path | None = None,
) -> Reachable:
    """What cuts of a model can gain on its device; the device is timed unless `cache` knows it.

    constraints: the rules that plans will follow. Raises: BudgetError where they permit no cut.
    """
    device, rules = device or Device(), constraints or Constraints()
    scores = score(graph, model, criterion="random")
    timings = dense_timings(
        model, graph, example_inputs, device=device, constraints=rules, cache=cache
    )
    costs = TimedCosts(graph, timings)
    smallest = _smallest(graph, scores, rules)
    least = cut(model, smallest)
    models = {"dense": model, "least": least}
    zeros = share_of_zeros(model)
    if zeros >= MANY_ZEROS:
        models["filled"] = _filled(model)
    measured = device.measure(
        {name: device.prepare(each, example_inputs) for name, each in models.items()},
        example_inputs,
        rounds=ROUNDS,
        seconds=SECONDS,
    )
    dense_ms, least_ms = measured["dense"].median_ms, measured["least"].median_ms
    filled = measured.get("filled")
    inputs, _ = resize_batch(example_inputs, device.batch_size)
    own = own_times(least, inputs, threads=device.threads)
    known = _with_sample(timings, smallest.counts(), own, share=least_ms / dense_ms)
    return Reachable(
        dense_ms=dense_ms,
        shares=LatencyModel(graph, known).shares(),
        least=min(1.0, least_ms / dense_ms),
        half_macs=_half_macs(graph, scores, rules, costs),
        error=timings.error,
        conditions=timings.conditions,
        zeros=zeros,
        zeros_time=None if filled is None else dense_ms / filled.median_ms,
        smallest=known.samples[-1],
    )


def dense_timings(
    model: nn.Module,
    graph: Graph,
    example_inputs: Any,
    *,
    device: Device,
    constraints: Constraints,
    cache: Path | None = None,
) -> Timings:
    """What was or is timed of a whole model, at the widths that `plan_within` times first."""
    step = constraints.multiple_of
    if step == 1:
        step = liked_width(model, graph, example_inputs, device=device, cache=cache)
    return time_device(model, graph, example_inputs, device=device, cache=cache, multiple_of=step)


def share_of_zeros(model: nn.Module) -> float:
    """Zeros among the numbers of a model's matrices.

    >>> layer = nn.Linear(2, 2)
    >>> nn.init.eye_(layer.weight).requires_grad
    True
    >>> share_of_zeros(layer)
    0.5
    """
    weights = [each for each in model.parameters() if each.ndim > 1]
    total = sum(weight.numel() for weight in weights)
    return sum(int((weight == 0).sum()) for weight in weights) / total if total else 0.0


def _smallest(graph: Graph, scores: Scores, rules: Constraints) -> Plan:
    """As far as the rules alone let a cut go."""
    if rules.has_target or rules.blocks is not None:
        rules = replace(rules, blocks=None)
        return plan(graph, scores, constraints=rules if rules.has_target else _to_the_end(rules))
    return plan(graph, scores, constraints=_to_the_end(rules))


def _to_the_end(rules: Constraints) -> Constraints:
    return replace(rules, selector="uniform", keep=LITTLE)


def _with_sample(
    timings: Timings, counts: Mapping[int, int], own: Mapping[str, float], *, share: float
) -> Timings:
    """Timings that know the smallest model too; share: of the dense latency."""
    whole = share * timings.samples[0].whole_ms
    known = {path: own.get(path, 0.0) for path in timings.samples[0].own_ms}
    scale = whole / sum(known.values())
    sample = Sample(dict(counts), whole, {path: ms * scale for path, ms in known.items()})
    return replace(timings, samples=(*timings.samples, sample))


def _half_macs(graph: Graph, scores: Scores, rules: Constraints, costs: TimedCosts) -> float | None:
    with suppress(BudgetError):
        rules = replace(rules, selector="uniform", blocks=None)
        made = plan(graph, scores, budget="macs=50%", constraints=rules, costs=costs)
        before, after = made.before.latency_ms, made.after.latency_ms
        assert before is not None and after is not None
        return after / before
    return None


@torch.no_grad()
def _filled(model: nn.Module) -> nn.Module:
    """A copy with small numbers in place of its zeros."""
    twin = copied(model)
    for weight in twin.parameters():
        weight.masked_fill_(weight == 0, 1e-2)
    return twin
