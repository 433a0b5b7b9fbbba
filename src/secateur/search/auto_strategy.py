"""What automatic pruning does next, as a pure function of the steps that it took.

The way to the target is divided into steps. As long as the floor holds, the next one is cut from
the last model. When it breaks, in this order: the same model is trained longer; it is cut in
another way from the last good model, with a long recovery; half of the step is taken, in the way
that did best. The first two are tried only where the floor is near. From the first failure on all
recoveries are long. It ends when target and floor hold, when half a step would change nothing that
can be measured, or when all attempts are used up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from secateur.search.auto_values import AutoStep

NEAR = 0.02
"""Below the floor by so much of the dense metric: more training may be enough."""
RISING = 0.0005
"""What training on must have won, of the dense metric, to be tried for twice as long."""
DOUBLED = 3
"""How often at most."""
LEAST_STEP = 0.04
"""What a step must take away, of what the model before it costs, to be worth a recovery."""


@dataclass(frozen=True, slots=True)
class Move:
    """What to do: see `AutoStep`."""

    kind: str
    base: int
    asked: float
    way: int
    long: bool
    doubled: int = 0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the next move depends on besides the history. target: shares that may remain. dense,
    floor: metrics. steps, attempts, ways: how many."""

    target: Mapping[str, float]
    dense: float
    floor: float
    steps: int
    attempts: int
    ways: int

    def is_near(self, step: AutoStep) -> bool:
        """Whether the metric is below the floor by little."""
        return step.metric is not None and self.floor - step.metric <= NEAR * abs(self.dense)

    def is_rising(self, step: AutoStep, before: AutoStep) -> bool:
        """Whether training on won enough to go on with."""
        if step.metric is None or before.metric is None:
            return False
        return step.metric - before.metric >= RISING * abs(self.dense)

    def is_worth(self, progress: float) -> bool:
        """Whether so much progress takes away enough."""
        return bool(min(self.target.values()) ** progress <= 1.0 - LEAST_STEP)


MET, FLOOR, ATTEMPTS = "met", "floor", "attempts"
"""Why it ends: both hold; the floor breaks at any smaller size; too many steps."""


def next_move(history: Sequence[AutoStep], rules: Rules) -> Move | str:
    """The next move, or one of the reasons to end."""
    held = best_of(history)
    if held is not None and held.met:
        return MET
    if len(history) >= rules.attempts:
        return ATTEMPTS
    base, start = (0, 0.0) if held is None else (held.number, held.reached)
    failed = [step for step in history if step.number > base]
    if not failed:
        asked = _next_waypoint(start, 0.0 if held is None else held.asked, rules)
        long = asked == 1.0 or any(not step.holds for step in history)
        return Move("cut", base, asked, 0, long)
    last, first = failed[-1], failed[0]
    if last.asked == first.asked and last.way == first.way and rules.is_near(last):
        longer = len(failed) - 1
        doubled = longer + first.long
        if not longer or (doubled <= DOUBLED and rules.is_rising(last, failed[-2])):
            return Move("longer", last.number, last.asked, last.way, True, doubled)
        if rules.ways > 1:
            return Move("cut", base, last.asked, (last.way + 1) % rules.ways, True)
    asked = (start + last.asked) / 2
    if not rules.is_worth(asked - start):
        return FLOOR
    return Move("cut", base, asked, _better_way(failed), True)


def best_of(history: Sequence[AutoStep]) -> AutoStep | None:
    """The smallest model that holds the floor: of the last step that does."""
    return next((step for step in reversed(history) if step.holds), None)


def _next_waypoint(start: float, asked: float, rules: Rules) -> float:
    """The first that lies ahead of what was reached and was not asked for already."""
    points = [number / rules.steps for number in range(1, rules.steps + 1)]
    return next((p for p in points if p > asked and rules.is_worth(p - start)), 1.0)


def _better_way(failed: Sequence[AutoStep]) -> int:
    """Of the tries at one size, the way that kept most; the first where none made a model."""
    tried = [step for step in failed if step.metric is not None]
    return max(tried, key=lambda step: (step.metric, -step.number)).way if tried else 0
