"""Learning-rate schedules as pure functions of the step: nothing to save, nothing to restore.

`learning_rate_factor` says what to multiply the base learning rate by. Warm-up rises linearly to
1 over its steps; then the named curve runs over the rest, from 1 at progress 0 towards progress 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

# one-cycle: rises from 1/25 and ends at 1/25 of 1e-4, over a warm-up of 30 % unless one is given
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = ONE_CYCLE_START * 1e-4
ONE_CYCLE_WARMUP = 0.3


def learning_rate_factor(name: str, *, step: int, total: int, warmup: float = 0.0) -> float:
    """Factor for optimizer step `step` of `total`, counted from 0; `warmup` is a share of `total`.

    constant, cosine (Loshchilov & Hutter, ICLR 2017, eq. 5, arXiv 1608.03983, one period, to 0),
    linear (to 0), one_cycle (Smith & Topin 2018, arXiv 1708.07120; cosine arms, the momentum is
    left alone).

    >>> [round(learning_rate_factor("linear", step=k, total=4), 2) for k in range(4)]
    [1.0, 0.75, 0.5, 0.25]
    >>> [learning_rate_factor("constant", step=k, total=4, warmup=0.5) for k in (0, 1, 2)]
    [0.5, 1.0, 1.0]
    """
    if name == "one_cycle":
        return _one_cycle(step, total, warmup or ONE_CYCLE_WARMUP)
    rising = math.ceil(warmup * total)
    if step < rising:
        return (step + 1) / rising
    return CURVES[name]((step - rising) / max(1, total - rising))


def _one_cycle(step: int, total: int, warmup: float) -> float:
    rising = max(0.0, warmup * total - 1)
    if step < rising:
        return _arm(ONE_CYCLE_START, 1.0, step / rising)
    return _arm(1.0, ONE_CYCLE_END, (step - rising) / max(1.0, total - 1 - rising))


def _arm(start: float, end: float, progress: float) -> float:
    """Half a cosine from `start` to `end`."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * progress))


CURVES: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "constant": lambda progress: 1.0,
        "cosine": lambda progress: _arm(1.0, 0.0, progress),
        "linear": lambda progress: 1.0 - progress,
    }
)
SCHEDULES = (*CURVES, "one_cycle")
