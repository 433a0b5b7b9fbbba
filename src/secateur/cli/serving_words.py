"""What a command that is told a price says of the cost of serving, before and after."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.core.plan import Plan
from secateur.cost.batch import resize_batch
from secateur.cost.serving import cost_per_million
from secateur.report.words import significant
from secateur.search.timing import Device


def serving_line(dense_ms: float, pruned_ms: float, *, batch: int, price_per_hour: float) -> str:
    """The sentence.

    >>> serving_line(36.0, 18.0, batch=8, price_per_hour=1.2)
    'a million requests cost 1.50 before and 0.750 after, at 1.2 an hour, batch 8, always busy'
    """
    before, after = (
        significant(cost_per_million(ms, batch, price_per_hour=price_per_hour))
        for ms in (dense_ms, pruned_ms)
    )
    return (
        f"a million requests cost {before} before and {after} after, at {price_per_hour:g} an "
        f"hour, batch {batch}, always busy"
    )


def planned_serving(
    model: nn.Module, plan: Plan, example_inputs: Any, *, device: Device, price_per_hour: float
) -> str:
    """The sentence for a plan; without measured latencies in it, the cut model is measured."""
    from secateur.cost.latency import measure_latency
    from secateur.cut import cut

    _, batch = resize_batch(example_inputs, device.batch_size)
    dense_ms, pruned_ms = plan.before.latency_ms, plan.after.latency_ms
    if dense_ms is None or pruned_ms is None:
        ready = {"dense": device.prepare(model, example_inputs)}
        ready["pruned"] = device.prepare(cut(model, plan), example_inputs)
        found = measure_latency(
            ready, example_inputs, batch_size=device.batch_size, threads=device.threads
        )
        dense_ms, pruned_ms = found["dense"].median_ms, found["pruned"].median_ms
    return serving_line(dense_ms, pruned_ms, batch=batch, price_per_hour=price_per_hour)
