"""Whether a device likes layers of certain widths, measured on the model itself.

Kernels are made for multiples of the vector register. In some runtimes any other width falls off
a cliff, in others it costs next to nothing, and then more freedom is better: the model is cut
evenly to about half, once to any widths and once to multiples, and what counts is how much
arithmetic is left for the time.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from secateur.core.atomic import write_text
from secateur.core.errors import BudgetError
from secateur.core.graph import Graph
from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.search.timing import Device, conditions_of, key_of
from secateur.select.plan import plan

ALIGNED = 16
"""A vector register of float32 on many processors."""
KEPT = 0.55
"""Half of widths that are powers of two would be multiples anyway."""
ROUNDS = 9
SECONDS = 2.0
GAIN = 1.03
"""So much more arithmetic in the same time is worth the loss of freedom."""


def liked_width(
    model: nn.Module,
    graph: Graph,
    example_inputs: Any,
    *,
    device: Device,
    cache: Path | None = None,
) -> int:
    """1, or ALIGNED where its multiples keep more multiply-accumulates for the time on a device.

    cache: as for `time_device`.
    """
    conditions = conditions_of(model, example_inputs, device)
    key = key_of(graph, conditions, (KEPT, ALIGNED, ROUNDS))
    place = None if cache is None else cache / f"{key}-width.json"
    if place is not None and place.is_file():
        return int(json.loads(place.read_text(encoding="utf-8"))["multiple_of"])
    found = _measured(model, graph, example_inputs, device)
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, json.dumps({"multiple_of": found, "conditions": conditions}) + "\n")
    return found


def _measured(model: nn.Module, graph: Graph, example_inputs: Any, device: Device) -> int:
    scores = score(graph, model, criterion="random")
    try:
        plans = {step: plan(graph, scores, keep=KEPT, multiple_of=step) for step in (1, ALIGNED)}
    except BudgetError:
        return 1
    if plans[1].counts() == plans[ALIGNED].counts():
        return 1
    ready = {
        str(step): device.prepare(cut(model, made), example_inputs) for step, made in plans.items()
    }
    measured = device.measure(
        ready,
        example_inputs,
        rounds=ROUNDS,
        warmup=1,
        seconds=SECONDS,
    )

    def worth(step: int, made: Plan) -> float:
        return made.after.macs / measured[str(step)].median_ms

    return ALIGNED if worth(ALIGNED, plans[ALIGNED]) > GAIN * worth(1, plans[1]) else 1
