"""What a command that plans to a latency says before and after: what is reachable on this device,
and where the time still goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from secateur.cli.output import say
from secateur.core.graph import Graph
from secateur.select.constraints import Constraints

if TYPE_CHECKING:
    from secateur.search.timing import Device
    from secateur.search.within import Within
    from secateur.zoo.loaded import LoadedModel


def tell_reachable(
    loaded: LoadedModel, graph: Graph, *, budget: str, rules: Constraints, device: Device
) -> None:
    """Say what can be gained. Raises: BudgetError for a latency that no cut can reach."""
    from secateur.search.reachable import reachable
    from secateur.search.timing import cache_folder

    found = reachable(
        loaded.model,
        graph,
        loaded.example_inputs,
        device=device,
        constraints=rules,
        cache=cache_folder(),
    )
    for line in found.lines():
        say(line)
    found.check(budget)


def tell_where(loaded: LoadedModel, found: Within, *, device: Device) -> None:
    """Say where the time of what was found goes."""
    from secateur.search.where_time_goes import where_time_goes

    whole_ms = (found.dense.median_ms, found.pruned.median_ms)
    where = where_time_goes(
        loaded.model, found.model, loaded.example_inputs, device=device, whole_ms=whole_ms
    )
    say(where.line())
