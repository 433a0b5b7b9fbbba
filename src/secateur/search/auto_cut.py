"""One cut on the way to a target: from the model of an earlier step to some progress.

Scores are of the model that is cut, plans are composed to one plan of the dense model, and what is
left is fitted to the outputs of the layers before the cut where that helps. A share of latency is
measured beside the dense model, never multiplied up from steps, and a cut that comes to another
share than was asked for is made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.copies import copied
from secateur.core.errors import BudgetError, ScoreError
from secateur.core.graph import Graph
from secateur.core.plan import Plan, Scores
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.cut.compose import compose
from secateur.oneshot import reconstruct_
from secateur.search.adapt import Adapter, fitted_loss
from secateur.search.auto_folder import Cut
from secateur.search.auto_strategy import Move
from secateur.search.auto_subject import LATENCY, Subject
from secateur.search.auto_values import ADAPT, Way, progress_of, shares_at
from secateur.search.within import plan_within
from secateur.select.plan import plan

AIM = 0.975
"""Of the latency that may remain: measured again another day it should still hold."""
CLOSE = (0.93, 1.0)
"""Between these shares of the latency that may remain the last cut is as it should be."""
ON_THE_WAY = (0.88, 1.08)
"""The same of an earlier cut, of which only the direction matters."""
TRIES = 3
ROUNDS, FEW_ROUNDS = 30, 9
THRESHOLD = "global"
"""The selector where there is no time to try."""


class TooLong(Exception):
    """Trying takes longer than it may; never leaves this file."""


def cut_to(
    subject: Subject,
    base: tuple[nn.Module, Plan | None],
    shares: Mapping[str, float],
    move: Move,
    *,
    allowance_s: float = math.inf,
) -> Cut:
    """The model of an earlier step, cut as far as `move` asks for.

    base: that model, and the plan that makes it of the dense one. shares: what it costs.
    allowance_s: what trying out which groups give way may take; where that is too little, a
    threshold over all of them decides.
    Raises: BudgetError where the rules or the device do not let it go so far.
    """
    way, (model, before) = subject.settings.ways[move.way], base
    graph = subject.trace(model)
    settings = subject.settings
    scores = score(
        graph,
        model,
        criterion=way.criterion,
        data=subject.calibration,
        loss_fn=subject.data.loss_fn,
        seed=settings.seed,
    )
    cutting = _Cutting(subject, model, before, graph, scores, way, shares, move.asked)
    try:
        best = replace(cutting, adapter=cutting.trying(allowance_s)).nearest()
    except TooLong:
        best = cutting.nearest()
    small, metric = _fitted(subject, best.model, model, best.step)
    reached = progress_of(best.shares, subject.target)
    row = {"reached": reached, "shares": dict(best.shares), "metric_cut": metric}
    return Cut(small, best.plan, row)


@dataclass(frozen=True)
class _Candidate:
    """A cut that was tried. step: the plan from the model before it; plan: from the dense one."""

    step: Plan
    model: nn.Module
    plan: Plan
    shares: Mapping[str, float]


@dataclass(frozen=True)
class _Cutting:
    """What all tries of one cut share. shares: what the model costs before it."""

    subject: Subject
    model: nn.Module
    before: Plan | None
    graph: Graph
    scores: Scores
    way: Way
    shares: Mapping[str, float]
    asked: float
    adapter: Adapter | None = None

    def trying(self, allowance_s: float) -> Adapter | None:
        """What tries out which groups give way, None where a selector says so."""
        if self.way.selector != ADAPT:
            return None
        subject, ends = self.subject, time.monotonic() + allowance_s
        judge = fitted_loss(
            self.model, data=subject.calibration, held=subject.held, loss_fn=subject.data.loss_fn
        )

        def judged(step: Plan) -> float:
            if time.monotonic() > ends:
                raise TooLong
            return judge(step)

        return Adapter(self.graph, self.scores, judged, subject.settings.constraints)

    @property
    def is_last(self) -> bool:
        """Whether the target itself is asked for, which then must hold."""
        return self.asked == 1.0

    @property
    def allowed(self) -> dict[str, float]:
        """What may remain of each cost of the dense model."""
        return shares_at(self.asked, self.subject.target)

    def nearest(self) -> _Candidate:
        """Of a few tries the one nearest to what is asked for. Raises: BudgetError."""
        found: list[_Candidate] = []
        aim, (low, high) = (AIM, CLOSE) if self.is_last else (1.0, ON_THE_WAY)
        for _ in range(TRIES):
            try:
                found.append(self._candidate(aim))
            except BudgetError:
                if not found:
                    raise
                break
            over = self._over(found[-1])
            if low <= over <= high:
                break
            aim *= AIM / over
        fits = [one for one in found if not self.is_last or self._over(one) <= 1.0]
        if not fits:
            raise BudgetError(
                f"{_words(found[-1].shares)} remained in {len(found)} tries where "
                f"{_words(self.allowed)} may"
            )
        return min(fits, key=lambda one: abs(math.log(self._over(one))))

    def _over(self, one: _Candidate) -> float:
        """Latency beside what may remain of it; what is counted is met exactly."""
        if LATENCY not in one.shares:
            return 1.0
        return one.shares[LATENCY] / min(1.0, self.allowed[LATENCY])

    def _candidate(self, aim: float) -> _Candidate:
        step = self._planned(aim)
        if not step.keep:
            raise BudgetError(f"no unit can go on the way to {_words(self.allowed)}")
        small, subject = cut(self.model, step), self.subject
        plans = [step] if self.before is None else [self.before, step]
        said = {**step.settings, "budget": subject.settings.target}
        whole = compose(subject.graph, plans, final=small, settings=said)
        rounds = ROUNDS if self.is_last else FEW_ROUNDS
        whole, shares = subject.measured(small, whole, rounds=rounds)
        return _Candidate(step, small, whole, shares)

    def _planned(self, aim: float) -> Plan:
        """A plan of the model before the cut; its limits are of the dense model's costs. Latency is
        predicted on the way, where the direction is enough, and measured in the end."""
        subject, settings = self.subject, self.subject.settings
        limits = [
            Limit(metric, None, share * Limit(metric, 1.0, None).value(subject.cost))
            for metric, share in self.allowed.items()
            if metric != LATENCY
        ]
        left = aim * self.allowed.get(LATENCY, math.inf) / self.shares.get(LATENCY, 1.0)
        if left < 1.0:
            limits.append(Limit(LATENCY, left, None))
        elif not limits:
            raise BudgetError(f"{_words(self.shares)} is within {_words(self.allowed)} already")
        selector = THRESHOLD if self.way.selector == ADAPT else self.way.selector
        rules = replace(settings.constraints, selector=selector, normalise=self.way.normalise)
        how: dict[str, Any] = {
            "budget": Budget(tuple(limits)),
            "settings": {"criterion": self.way.criterion, "seed": settings.seed},
        }
        if left >= 1.0 or not self.is_last:
            how["costs"] = subject.costs(self.graph) if left < 1.0 else None
            if self.adapter is not None:
                return self.adapter.plan(**how)
            return plan(self.graph, self.scores, constraints=rules, **how)
        if self.adapter is not None:
            how["planner"] = self.adapter.plan
        how |= {"device": settings.device, "cache": subject.timings, "constraints": rules}
        return plan_within(self.model, self.graph, self.scores, subject.example, **how).plan


def _fitted(
    subject: Subject, small: nn.Module, model: nn.Module, made: Plan
) -> tuple[nn.Module, float]:
    """The cut model, its weights fitted to the outputs before the cut if that is better, and its
    metric."""
    twin, metric = copied(small), subject.validate(small)
    try:
        reconstruct_(twin, model, plan=made, data=subject.calibration)
    except ScoreError:  # the layers' outputs overflow on this data: nothing to fit to
        return small, metric
    fitted = subject.validate(twin)
    return (twin, fitted) if fitted > metric else (small, metric)


def _words(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{metric} {share:.1%}" for metric, share in shares.items())
