"""What all trials stand on: the graph, the scores of each criterion, and what a candidate costs.

Made once in a process. Candidates are measured beside the dense model in the same minute, and what
counts is the share, so that a busy machine disturbs both alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.cost import Cost
from secateur.core.modes import evaluating
from secateur.core.plan import Plan, Scores
from secateur.cost.counted import CostModel
from secateur.cost.timed import TimedCosts
from secateur.criteria.score import score
from secateur.graph import trace
from secateur.search.study_space import Choice
from secateur.search.timing import time_device
from secateur.search.trial_task import LATENCY, Task
from secateur.select.plan import plan

ROUNDS, SECONDS = 15, 20.0
"""Rounds of a measurement, and how long they may take where forwards are slow."""

Alone = AbstractContextManager[Any]
"""A block in which no other process of the search measures."""


class Ground:
    """The task with its graph, and with the device timed where latency counts."""

    def __init__(self, task: Task, *, seed: int, cache: Path, alone: Alone) -> None:
        self.task, self.seed = task, seed
        self.graph = trace(task.model, task.example_inputs)
        self.costs: CostModel = CostModel(self.graph)
        self.calibration = task.calibrating()
        self._scores: dict[str, Scores] = {}
        self._alone = alone
        if LATENCY in task.costs:
            with alone:
                timings = time_device(
                    task.model, self.graph, task.example_inputs, device=task.device, cache=cache
                )
            self.costs = TimedCosts(self.graph, timings)
            self._whole = task.device.prepare(task.model, task.example_inputs)

    def scores(self, criterion: str) -> Scores:
        """Of the dense model's units, made once."""
        if criterion not in self._scores:
            self._scores[criterion] = score(
                self.graph,
                self.task.model,
                criterion=criterion,
                data=self.calibration,
                loss_fn=self.task.loss_fn,
                seed=self.seed,
            )
        return self._scores[criterion]

    def plan(self, choice: Choice) -> Plan:
        """The one-shot plan to the choice's share of the first cost. Raises: BudgetError."""
        return plan(
            self.graph,
            self.scores(choice.criterion),
            budget=Budget((Limit(self.task.costs[0], choice.share, None),)),
            constraints=replace(self.task.constraints, selector=choice.selector),
            settings={"criterion": choice.criterion, "seed": self.seed},
            costs=self.costs,
        )

    def costed(self, made: Plan, model: nn.Module) -> Plan:
        """The plan with this ground's costs; the latency is measured, where that is asked for."""
        before, after = self.costs.cost({}), self.costs.cost(made.counts())
        if LATENCY in self.task.costs and self.task.measured:
            dense, pruned = self._latencies(model)
            before, after = replace(before, latency_ms=dense), replace(after, latency_ms=pruned)
        return replace(made, before=before, after=after)

    def shares(self, made: Plan) -> dict[str, float]:
        """What a plan leaves of each cost."""
        dense, pruned = self.amounts(made.before), self.amounts(made.after)
        return {name: pruned[name] / dense[name] for name in self.task.costs}

    def amounts(self, cost: Cost) -> dict[str, float]:
        """Costs in their own units."""
        return {name: Limit(name, 1.0, None).value(cost) for name in self.task.costs}

    def metric(self, model: nn.Module) -> float:
        """The metric of a model."""
        with evaluating(model), torch.no_grad():
            return float(self.task.validate(model))

    def dense(self) -> dict[str, Any]:
        """The dense model's metric and costs, in their own units."""
        cost: Mapping[str, float] = self.amounts(self.costs.cost({}))
        return {"metric": self.metric(self.task.model), "amounts": dict(cost)}

    def _latencies(self, model: nn.Module) -> tuple[float, float]:
        device = self.task.device
        with self._alone:
            both = device.measure(
                {"dense": self._whole, "pruned": model},
                self.task.example_inputs,
                rounds=ROUNDS,
                seconds=SECONDS,
            )
        return round(both["dense"].median_ms, 6), round(both["pruned"].median_ms, 6)
