"""`secateur inspect MODEL`: what can be removed, what is pinned and why, and the cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.output import table
from secateur.cli.settings import InspectSettings
from secateur.cli.sources import fetch_model
from secateur.core.cost import Cost
from secateur.core.graph import Graph, Group
from secateur.report.words import amount, plural, size


@dataclass(frozen=True, slots=True)
class Inspection:
    """A traced model. every_pin: whether pinned groups are listed one by one."""

    model: str
    graph: Graph
    cost: Cost
    every_pin: bool

    def to_json(self) -> dict[str, Any]:
        """The graph and its cost."""
        return {"model": self.model, "cost": self.cost.to_json(), **self.graph.to_json()}

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        graph = self.graph
        pinned = [group for group in graph.groups if group.pinned is not None]
        parts: list[RenderableType] = [self._heading(), "", _free_table(graph.free)]
        if pinned:
            parts += ["", _pinned_table(pinned) if self.every_pin else _reasons_table(pinned)]
        parts += [f"warning: {line}" for line in graph.warnings]
        parts += [
            f"warning: operator {name} has no rule (ran {count} times); what it touches is pinned"
            for name, count in graph.unknown_ops.items()
        ]
        console.print(Stacked(*parts))

    def _heading(self) -> str:
        cost = self.cost
        return (
            f"{self.model}: {amount(cost.params)} parameters, {amount(cost.macs)} MACs, "
            f"{size(cost.size_bytes)}; {plural(len(self.graph.free), 'free group')} of "
            f"{len(self.graph.groups)}"
        )


def inspect_model(settings: InspectSettings) -> Inspection:
    """Trace a model and count its cost. Raises: TraceError, UnsupportedOpError, ValueError."""
    from secateur.cost.counted import cost
    from secateur.graph import trace

    loaded = fetch_model(settings)
    graph = trace(loaded.model, loaded.example_inputs, strict=settings.strict)
    return Inspection(settings.model, graph, cost(graph), settings.all)


def _free_table(groups: Iterable[Group]) -> Table:
    rows = table("group", "units", "members", "cut", numbers=frozenset({"units", "members"}))
    for group in groups:
        kind = "exact" if group.exact else ", ".join(sorted(group.flags))
        kind += " (structural)" if group.structural else ""
        rows.add_row(group.id, f"{group.size:,}", str(len(group.members)), kind)
    return rows


def _pinned_table(groups: Iterable[Group]) -> Table:
    rows = table("pinned group", "units", "why", numbers=frozenset({"units"}))
    for group in groups:
        rows.add_row(group.id, f"{group.size:,}", group.pinned)
    return rows


def _reasons_table(groups: Iterable[Group]) -> Table:
    rows = table("pinned because", "groups", numbers=frozenset({"groups"}))
    for reason, count in Counter(group.pinned for group in groups).most_common():
        rows.add_row(reason, str(count))
    return rows
