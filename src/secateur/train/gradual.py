"""Pruning while training: the model really shrinks as it trains, so the training costs less.

`GradualPruner` decides when and what to cut, for any training loop: it is told of every step, cuts
when one is due, and is taken up from its `state()` at any time. `finetune` and the adapters to
other trainers run it; in a loop of one's own it is three lines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from secateur.core.budget import Budget, Limit
from secateur.core.errors import TrainError
from secateur.core.graph import Graph
from secateur.core.modes import same_randomness
from secateur.core.plan import Plan, Scores
from secateur.cost.counted import cost
from secateur.criteria.score import score
from secateur.cut import cut_
from secateur.cut.compose import compose
from secateur.graph import trace
from secateur.graph.trace import ExampleInputs
from secateur.select.plan import plan as make_plan
from secateur.storage.huggingface import expressible
from secateur.train.batches import samples_in
from secateur.train.gradual_options import of_dense
from secateur.train.gradual_values import RUNNING, CutRow, GradualLog, GradualSettings
from secateur.train.objective import LossFn
from secateur.train.random_state import capture, restore
from secateur.train.running_taylor import RunningTaylor

Cutter = Callable[[Plan], None]


class GradualPruner:
    """Cuts a model in the middle of its training, down to a budget.

    example_inputs: of the model, one batch. total_steps: optimizer steps of the whole training.
    calibration, loss_fn: for criteria that look at data. In a loop of one's own::

        pruner = GradualPruner(model, x[:1], settings=GradualSettings("macs=40%"), total_steps=n)
        ...
        loss.backward(); pruner.observe_()
        optimizer.step(); pruner.step_(optimizer)

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> settings = GradualSettings("params=50%", cuts=2, criterion="l2")
    >>> pruner = GradualPruner(model, torch.zeros(1, 4), settings=settings, total_steps=10)
    >>> for _ in range(10):
    ...     model(torch.randn(8, 4)).square().mean().backward()
    ...     optimizer.step()
    ...     _ = pruner.step_(optimizer, samples=8)
    >>> model[0].out_features, len(pruner.log().rows)
    (7, 2)
    """

    def __init__(
        self,
        model: nn.Module,
        example_inputs: ExampleInputs,
        *,
        settings: GradualSettings,
        total_steps: int,
        calibration: Iterable[Any] | None = None,
        loss_fn: LossFn | None = None,
    ) -> None:
        if total_steps < 1:
            raise TrainError(
                "pruning while training must know how many steps the training has, to place its "
                "cuts; give data with a length, or set steps_per_epoch"
            )
        self.model, self.example_inputs, self.settings = model, example_inputs, settings
        self.total_steps, self.calibration, self.loss_fn = total_steps, calibration, loss_fn
        self.steps = self.samples = 0
        self.graph = self._dense_graph = self._trace()
        self.dense = cost(self.graph)
        self.target = settings.limit.allowed(self.dense) / settings.limit.value(self.dense)
        self.rows: list[CutRow] = []
        self.plans: list[str] = []
        self.running = RunningTaylor(settings.memory) if settings.criterion == RUNNING else None

    @property
    def done(self) -> bool:
        """Whether the last cut was made."""
        return len(self.rows) >= self.settings.cuts_due(self.total_steps, self.total_steps)

    def observe_(self, *, loss_scale: float = 1.0) -> None:
        """Look at the gradients, after `backward` and before they are used or cleared.

        loss_scale: what they are multiplied by. Raises: ScoreError where none reaches a group.
        """
        if self.running is not None and not self.done:
            self.running.observe_(self.graph, self.model, loss_scale=loss_scale)

    def step_(
        self, optimizer: Optimizer | None = None, *, samples: int = 0, cutter: Cutter | None = None
    ) -> CutRow | None:
        """Count an optimizer step and make the cut that is due, if one is; what was cut, or None.

        cutter: cuts the model in a way of its own in place of `cut_`.
        Raises: BudgetError when the budget of a cut cannot be met.
        """
        self.steps += 1
        self.samples += samples
        due = self.settings.cuts_due(self.steps, self.total_steps)
        if due <= len(self.rows):
            return None
        started = time.perf_counter()
        asked = self.settings.remaining(due, self.target)
        plan = self._plan(asked)
        if cutter is None:
            cut_(self.model, plan, optimizer=optimizer)
        else:
            cutter(plan)
        self._follow_(plan)
        row = self._row(asked, time.perf_counter() - started)
        # a training so short that several cuts fall on one step makes them at once
        self.rows += [row] * (due - len(self.rows))
        self.plans.append(plan.to_json())
        return row

    def plan(self) -> Plan:
        """One plan that cuts the dense model as it was cut step by step, to save with the model.

        Raises: CutError where the steps cannot be told as one cut.
        """
        plans = [Plan.from_json(text) for text in self.plans]
        settings = {**plans[-1].settings, "cuts": len(plans)} if plans else {}
        return compose(self._dense_graph, plans, final=self.model, settings=settings)

    def log(self) -> GradualLog:
        """What was cut so far, and what that saved."""
        rows = tuple(dict.fromkeys(self.rows))
        macs = self.dense.macs / self._batch
        return GradualLog(macs, self.dense.params, self.samples, rows, tuple(self.plans))

    def state(self) -> dict[str, Any]:
        """All that a checkpoint needs, as plain values and tensors."""
        return {
            "steps": self.steps,
            "samples": self.samples,
            "rows": [{name: getattr(row, name) for name in CutRow.__slots__} for row in self.rows],
            "plans": list(self.plans),
            "running": None if self.running is None else self.running.state(),
        }

    def rebuild_(self, state: Mapping[str, Any], optimizer: Optimizer | None = None) -> None:
        """Cut the dense model, and its optimizer, as they were cut when `state` was taken.

        The weights' values are to be put back afterwards. Raises: PlanMismatchError for another
        model.
        """
        for text in state["plans"]:
            cut_(self.model, Plan.from_json(text), optimizer=optimizer)

    def load_state_(self, state: Mapping[str, Any]) -> None:
        """Stand where `state` was taken, with a model that has its shapes already."""
        self.steps, self.samples = state["steps"], state["samples"]
        self.rows = [CutRow(**row) for row in state["rows"]]
        self.plans = list(state["plans"])
        if self.plans:
            self.graph = self._trace()
        if self.running is not None:
            self.running.load_state_(state["running"])

    def _plan(self, asked: float) -> Plan:
        """The plan that leaves `asked` of the dense cost."""
        settings, limit = self.settings, self.settings.limit
        budget = Budget((Limit(limit.metric, None, asked * limit.value(self.dense)),))
        recorded = {"criterion": settings.criterion, "seed": settings.seed}
        options = of_dense(settings.options, self._dense_graph, self.graph)
        return make_plan(self.graph, self._scores(), budget=budget, settings=recorded, **options)

    def _scores(self) -> Scores:
        if self.running is not None:
            return self.running.current()
        before = capture(self.calibration)  # reading data draws numbers that are the training's
        try:
            return score(
                self.graph,
                self.model,
                criterion=self.settings.criterion,
                data=self.calibration,
                loss_fn=self.loss_fn,
                seed=self.settings.seed + len(self.plans),
            )
        finally:
            restore(before, self.calibration)

    def _follow_(self, plan: Plan) -> None:
        before = self.graph
        self.graph = self._trace()
        if self.running is not None:
            self.running.renumber_(plan, before, self.graph)

    def _row(self, asked: float, seconds: float) -> CutRow:
        now, limit = cost(self.graph), self.settings.limit
        return CutRow(
            step=self.steps,
            samples=self.samples,
            asked=asked,
            remaining=limit.value(now) / limit.value(self.dense),
            macs=now.macs / self._batch,
            params=now.params,
            overhead_s=seconds,
        )

    def _trace(self) -> Graph:
        with same_randomness():
            graph = trace(self.model, self.example_inputs)
        return expressible(graph, self.model) if self.settings.huggingface else graph

    @property
    def _batch(self) -> int:
        """Samples in the example inputs."""
        return samples_in(self.example_inputs)
