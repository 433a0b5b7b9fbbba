"""A plan within an energy: what it may take as time, then joules counted, and again.

With stated watts energy is time: half the energy is half the latency. Under a counter the power
changes with the width, so each model that was found is counted beside the dense one, and what it
came to corrects the latency that is asked for next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import nn

from secateur.core.budget import Budget, Limit
from secateur.core.errors import BudgetError
from secateur.cost.batch import device_of
from secateur.cost.energy import Energy, estimate_energy, measure_energy, needed_counter
from secateur.cost.latency import measure_latency
from secateur.search.timing import Device

if TYPE_CHECKING:
    from secateur.search.within import Within

TRIES = 4
CLOSE = 0.05
"""How far below the limit a model may be for the search to end; how far above it is no error."""


def energy_limit(budget: Budget) -> Limit | None:
    """The energy in a budget, if it speaks of any."""
    return next((limit for limit in budget.limits if limit.metric == "energy"), None)


def check_energy(budget: str | Budget, model: nn.Module, *, watts: float | None) -> None:
    """Before minutes of measuring. Raises: ValueError for an energy that nothing can tell here."""
    if watts is None and energy_limit(Budget.parse(budget)) is not None:
        needed_counter(device_of(model))


def plan_within_energy(
    within_latency: Callable[[Budget], Within],
    model: nn.Module,
    example_inputs: Any,
    *,
    budget: Budget,
    device: Device,
    watts: float | None = None,
) -> Within:
    """What `within_latency` finds where the model's energy, counted or estimated, meets a limit.

    watts: what the device draws; without, its counter is read.

    Raises: BudgetError when the limit is not met, ValueError without a counter and without watts.
    """
    limit = energy_limit(budget)
    assert limit is not None
    check_energy(budget, model, watts=watts)
    share, latency_share = _shares(limit, budget, model, example_inputs, device, watts)
    others = tuple(one for one in budget.limits if one.metric not in ("latency", "energy"))
    asked, tried = min(share, latency_share), []
    for _ in range(TRIES):
        found = within_latency(Budget((*others, Limit("latency", asked, None))))
        dense, pruned = _joules(model, found, example_inputs, device, watts)
        gap = pruned.joules / dense.joules / share - 1.0
        tried.append((gap, _told(found, dense, pruned, budget, watts)))
        if watts is not None or -CLOSE <= gap <= 0.0 or (gap < 0.0 and asked == latency_share):
            break
        asked = min(asked / (1.0 + gap), latency_share, 1.0)
    gap, best = min(tried, key=lambda item: (item[0] > 0.0, abs(item[0])))
    if gap > CLOSE:
        raise BudgetError(
            f"{limit} was not met: of {len(tried)} models the nearest took "
            f"{share * (1.0 + gap):.1%} of the dense model's energy; ask for "
            f"energy={100 * share * (1.0 + gap):.0f}%"
        )
    return best


def _shares(
    limit: Limit,
    budget: Budget,
    model: nn.Module,
    example_inputs: Any,
    device: Device,
    watts: float | None,
) -> tuple[float, float]:
    """What may remain of the dense model's energy and of its latency."""
    latencies = [one for one in budget.limits if one.metric == "latency"]
    share, latency_share = limit.fraction, min([1.0, *(one.fraction or 1.0 for one in latencies)])
    ready = {"dense": device.prepare(model, example_inputs)}
    how: dict[str, Any] = {"batch_size": device.batch_size, "threads": device.threads}
    if share is None:
        dense = measure_energy(ready, example_inputs, watts=watts, **how)["dense"]
        share = min((limit.absolute or 0.0) / dense.joules, 1.0)
    absolute = [one.absolute for one in latencies if one.absolute is not None]
    if absolute:
        dense_ms = measure_latency(ready, example_inputs, **how)["dense"].median_ms
        latency_share = min(latency_share, *(ms / dense_ms for ms in absolute))
    return share, latency_share


def _joules(
    model: nn.Module, found: Within, example_inputs: Any, device: Device, watts: float | None
) -> tuple[Energy, Energy]:
    """Of the dense model and of what was found."""
    if watts is not None:
        return estimate_energy(found.dense, watts), estimate_energy(found.pruned, watts)
    both = measure_energy(
        {
            "dense": device.prepare(model, example_inputs),
            "pruned": device.prepare(found.model, example_inputs),
        },
        example_inputs,
        batch_size=device.batch_size,
        threads=device.threads,
    )
    return both["dense"], both["pruned"]


def _told(
    found: Within, dense: Energy, pruned: Energy, budget: Budget, watts: float | None
) -> Within:
    """With joules in the plan's costs, the budget as it was asked for, and where they are from."""
    how = "estimated" if dense.estimate else "measured"
    note = (
        f"energy {how} ({dense.source}, batch {dense.batch}): {pruned.joules:.3g} J a forward, "
        f"{pruned.joules / dense.joules:.1%} of the dense model's"
    )
    made = found.plan
    settings = {**made.settings, "budget": str(budget)}
    made = replace(
        made,
        notes=(*made.notes, note),
        before=replace(made.before, energy_j=round(dense.joules, 9)),
        after=replace(made.after, energy_j=round(pruned.joules, 9)),
        settings=settings if watts is None else {**settings, "watts": watts},
    )
    return replace(found, plan=made, energy=(dense, pruned))
