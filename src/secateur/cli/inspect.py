"""`secateur inspect MODEL`: what can be removed, what is pinned and why, and the cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.output import table
from secateur.cli.settings import InspectSettings
from secateur.cli.sources import fetch_model
from secateur.core.blocks import Block
from secateur.core.cost import Cost
from secateur.core.graph import Graph
from secateur.report.describe import Alike, Description, alike, describe
from secateur.report.members import compact_names
from secateur.report.words import TIMES, amount, percent, plural, size

_LONGEST_NAME = 60
_MEMBERS_SHOWN = 2


@dataclass(frozen=True)
class Inspection:
    """A traced model. every_group: whether groups are listed one by one, pinned ones too."""

    model: str
    graph: Graph
    cost: Cost
    every_group: bool

    @cached_property
    def described(self) -> tuple[Description, ...]:
        """Every group, for a reader."""
        return describe(self.graph)

    def to_json(self) -> dict[str, Any]:
        """The graph, its cost and the descriptions of its groups."""
        descriptions = [one.to_json() for one in self.described]
        blocks = [asdict(block) for block in self.graph.blocks]
        return {
            "model": self.model,
            "cost": self.cost.to_json(),
            "descriptions": descriptions,
            "blocks": blocks,
            **self.graph.to_json(),
        }

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        graph = self.graph
        free = [one for one in self.described if one.pinned is None]
        pinned = [one for one in self.described if one.pinned is not None]
        parts: list[RenderableType] = [self._heading(), ""]
        parts.append(_free_table(self._lines(free), ids=self.every_group))
        if any(one.cut != "exact" for one in free):
            parts += ["", _notes_table(free)]
        if pinned:
            parts += ["", _pinned_table(pinned) if self.every_group else _reasons_table(pinned)]
        if graph.blocks:
            parts += ["", _blocks_table(graph.blocks, self.cost)]
        parts += [f"warning: {line}" for line in graph.warnings]
        parts += [
            f"warning: operator {name} has no rule (ran {count} times); what it touches is pinned"
            for name, count in graph.unknown_ops.items()
        ]
        console.print(Stacked(*parts))

    def _lines(self, described: list[Description]) -> tuple[Alike, ...]:
        if self.every_group:
            return tuple(Alike(one.name, (one,)) for one in described)
        return alike(described)

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


def _free_table(lines: Iterable[Alike], *, ids: bool) -> Table:
    """One row a line; ids: with the group's id, for `keep` and `groups` in a plan."""
    columns = ["what a unit is", "units", "params", "MACs", "removed with it", "cut"]
    numbers = frozenset({"units", "params", "MACs"})
    rows = table(*columns, *(["id"] if ids else []), numbers=numbers)
    for line in lines:
        first = line.groups[0]
        cells = [
            _named(line),
            _units(line),
            percent(line.params_share),
            percent(line.macs_share),
            _together(first),
            _kind(first),
        ]
        rows.add_row(*cells, *([first.id] if ids else []))
    return rows


def _units(line: Alike) -> str:
    """Units, indices in each, and how many such groups there are: `12 of 64, 8 x`."""
    first = line.groups[0]
    each = f" of {first.unit:,}" if first.unit > 1 else ""
    many = f"{len(line.groups)} {TIMES} " if len(line.groups) > 1 else ""
    return f"{many}{first.units:,}{each}"


def _named(line: Alike) -> str:
    if len(line.name) <= _LONGEST_NAME:
        return line.name
    return line.groups[0].name + (
        f" and {len(line.groups) - 1} like it" if len(line.groups) > 1 else ""
    )


def _together(one: Description) -> str:
    """The first tensors, and how many lines there are besides."""
    shown = list(one.members[:_MEMBERS_SHOWN])
    more = len(one.members) - len(shown)
    return "\n".join([*shown, f"and {more} more"] if more > 0 else shown)


def _kind(one: Description) -> str:
    kinds = [note.partition(":")[0] for note in one.cut.split("; ")]
    return ", ".join(dict.fromkeys(kinds)) + (", structural" if one.structural else "")


def _notes_table(free: Iterable[Description]) -> Table:
    """Why removing differs from zeroing, each reason once."""
    reasons: dict[str, int] = {}
    for one in free:
        for note in one.cut.split("; ") if one.cut != "exact" else ():
            reasons[note] = reasons.get(note, 0) + 1
    rows = table("not exact because", "groups", numbers=frozenset({"groups"}))
    for reason, count in sorted(reasons.items(), key=lambda item: -item[1]):
        rows.add_row(reason, str(count))
    return rows


def _pinned_table(pinned: Iterable[Description]) -> Table:
    rows = table("pinned", "units", "why", numbers=frozenset({"units"}))
    for one in pinned:
        rows.add_row(one.name, _units(Alike(one.name, (one,))), one.pinned)
    return rows


def _blocks_table(blocks: Iterable[Block], cost: Cost) -> Table:
    """Residual blocks that can go as a whole (`blocks=` in a plan), alike ones on one line."""
    families: dict[tuple[str, str | None, int, int], list[Block]] = {}
    for block in blocks:
        families.setdefault((block.kind, block.pinned, block.params, block.macs), []).append(block)
    numbers = frozenset({"params each", "MACs each"})
    rows = table("residual block", "kind", "params each", "MACs each", "removed", numbers=numbers)
    for (kind, pinned, params, macs), family in families.items():
        rows.add_row(
            ", ".join(compact_names(block.path for block in family)),
            kind,
            percent(params / max(cost.params, 1)),
            percent(macs / max(cost.macs, 1)),
            "as a whole" if pinned is None else f"no: {pinned}",
        )
    return rows


def _reasons_table(pinned: Iterable[Description]) -> Table:
    """Each reason once, with the groups that it holds, written short."""
    reasons: dict[str, list[str]] = {}
    for one in pinned:
        reasons.setdefault(one.pinned or "", []).append(one.name)
    rows = table("pinned because", "groups", "which", numbers=frozenset({"groups"}))
    for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
        first, *others = compact_names(names)
        rows.add_row(
            reason, str(len(names)), first + (f" and {len(others)} more" if others else "")
        )
    return rows
