"""What automatic pruning starts from: the dense model with all that is measured of it once.

The target is turned into shares of the dense model's costs, and held against what is reachable on
this device before any training.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.cost import Cost
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.modes import evaluating
from secateur.core.plan import Plan
from secateur.cost.batch import device_of
from secateur.cost.counted import CostModel, cost
from secateur.cost.runtimes.prepared import Prepared
from secateur.cost.timed import Sample, Timings
from secateur.criteria.score import score
from secateur.graph import trace
from secateur.search.auto_costs import StepCosts
from secateur.search.auto_folder import AutoFolder
from secateur.search.auto_values import AutoData, AutoSettings
from secateur.search.reachable import Reachable, dense_timings, reachable
from secateur.search.timing import cache_folder
from secateur.search.within import latency_limit
from secateur.select.plan import plan
from secateur.storage.huggingface import expressible
from secateur.train.batches import samples_in, set_epoch_, split_batch, to_device

LATENCY = "latency"
SECONDS = 20.0
"""A measurement of two models ends after so long, where forwards take seconds."""


@dataclass(frozen=True)
class Subject:
    """What is pruned. graph, cost: of the dense model, latency among its costs where the target
    speaks of it. target: shares that may remain. calibration: batches; held: as many others, where
    there are, to judge candidates on. timings: folder. smallest: of the smallest model, measured.
    """

    dense: nn.Module
    graph: Graph
    example: Any
    data: AutoData
    settings: AutoSettings
    cost: Cost
    target: Mapping[str, float]
    calibration: list[Any]
    held: list[Any]
    timings: Path
    smallest: Sample | None = None

    @cached_property
    def prepared(self) -> Prepared:
        """The dense model in the runtime of the latency, made ready once."""
        return self.settings.device.prepare(self.dense, self.example)

    def trace(self, model: nn.Module) -> Graph:
        """The graph of a model on the way."""
        graph = trace(model, self.example)
        return expressible(graph, model) if self.settings.huggingface else graph

    @cached_property
    def timings_of_dense(self) -> Timings:
        """What the modules of the dense model take on the device, down to the smallest widths."""
        found = dense_timings(
            self.dense,
            self.graph,
            self.example,
            device=self.settings.device,
            constraints=self.settings.constraints,
            cache=cache_folder(),
        )
        known = () if self.smallest is None else (self.smallest,)
        return replace(found, samples=(*found.samples, *known))

    def costs(self, graph: Graph) -> CostModel:
        """Costs of a model on the way, its latency as the dense model's timings predict it."""
        return StepCosts(graph, self.graph, self.timings_of_dense)

    def validate(self, model: nn.Module) -> float:
        """The metric of a model."""
        with evaluating(model), torch.no_grad():
            return float(self.data.validate(model))

    def measured(
        self, model: nn.Module, made: Plan, *, rounds: int
    ) -> tuple[Plan, dict[str, float]]:
        """The plan of the dense model with what its model measured, and the shares that remain."""
        after = made.after
        if LATENCY in self.target:
            device = self.settings.device
            both = device.measure(
                {"dense": self.prepared, "pruned": device.prepare(model, self.example)},
                self.example,
                rounds=rounds,
                seconds=SECONDS,
            )
            dense_ms, ms = both["dense"].median_ms, both["pruned"].median_ms
            made = replace(made, before=replace(made.before, latency_ms=round(dense_ms, 6)))
            after = replace(after, latency_ms=round(ms, 6))
        made = replace(made, after=after)
        limits = {metric: Limit(metric, 1.0, None) for metric in self.target}
        return made, {
            m: one.value(made.after) / one.value(made.before) for m, one in limits.items()
        }


@dataclass(frozen=True)
class Start:
    """metric: of the dense model on validation data, and the seconds that this took. fault: why the
    target is out of reach, None where it is not."""

    subject: Subject
    metric: float
    check_s: float
    reachable: Reachable | None
    fault: str | None


def make_start(
    model: nn.Module, data: AutoData, settings: AutoSettings, folder: AutoFolder
) -> Start:
    """Measure the dense model, or read what was measured of it. Raises: TraceError, ValueError."""
    graph = trace(model, folder.example)
    graph = expressible(graph, model) if settings.huggingface else graph
    seen, more = (
        _calibration(data.train, samples, device_of(model))
        for samples in (settings.calibration, 2 * settings.calibration)
    )
    subject = Subject(
        dense=model,
        graph=graph,
        example=folder.example,
        data=data,
        settings=settings,
        cost=cost(graph),
        target={},
        calibration=seen,
        held=more[len(seen) :] or seen,
        timings=folder.timings,
    )
    found = folder.once("dense.json", lambda: _measured(subject))
    can = None if found["reachable"] is None else Reachable.from_json(found["reachable"])
    whole = replace(subject.cost, latency_ms=None if can is None else can.dense_ms)
    smallest = None if can is None else can.smallest
    subject = replace(
        subject, cost=whole, target=_shares(settings.target, whole), smallest=smallest
    )
    return Start(subject, found["metric"], found["check_s"], can, found["fault"])


def example_of(data: AutoData) -> Any:
    """The inputs of the first training batch."""
    set_epoch_(data.train, 0)
    batch = next(iter(data.train))
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "labels"}
    inputs = split_batch(batch)[0]
    return inputs[0] if len(inputs) == 1 else inputs


def _measured(subject: Subject) -> dict[str, Any]:
    settings = subject.settings
    started = time.monotonic()
    metric = subject.validate(subject.dense)
    check_s = time.monotonic() - started
    can, fault = None, _fault_of_counts(subject)
    if latency_limit(Budget.parse(settings.target)) is not None:
        can = reachable(
            subject.dense,
            subject.graph,
            subject.example,
            device=settings.device,
            constraints=settings.constraints,
            cache=cache_folder(),
        )
        fault = can.fault(settings.target) or fault
    plain = None if can is None else can.to_json()
    return {"metric": metric, "check_s": check_s, "reachable": plain, "fault": fault}


def _fault_of_counts(subject: Subject) -> str | None:
    """Why limits of what can be counted are out of reach."""
    settings = subject.settings
    limits = [each for each in Budget.parse(settings.target).limits if each.metric != LATENCY]
    if not limits:
        return None
    scores = score(subject.graph, subject.dense, criterion="random")
    try:
        plan(
            subject.graph,
            scores,
            budget=Budget(tuple(limits)),
            constraints=settings.constraints,
        )
    except BudgetError as error:
        return str(error)
    return None


def _shares(target: str, dense: Cost) -> dict[str, float]:
    """What may remain of each cost, as a share of the dense model's; the lowest of several."""
    shares: dict[str, float] = {}
    for limit in Budget.parse(target).limits:
        share = limit.allowed(dense) / limit.value(dense)
        shares[limit.metric] = min(share, shares.get(limit.metric, share))
    return shares


def _calibration(train: Iterable[Any], samples: int, device: torch.device) -> list[Any]:
    """The first batches of the training data, of so many samples; always the same ones."""
    set_epoch_(train, 0)
    batches: list[Any] = []
    for batch in islice(train, samples):
        batches.append(to_device(batch, device))
        if sum(samples_in(each) for each in batches) >= samples:
            break
    return batches
