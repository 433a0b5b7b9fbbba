"""`secateur sensitivity MODEL --data DATA`: what removals cost, group by group, measured."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.output import say, table
from secateur.cli.settings import SensitivitySettings
from secateur.cli.sources import (
    calibration,
    check_fits,
    fetch_data,
    fetch_model,
    loss_fn,
    on_device,
)
from secateur.core.atomic import write_text
from secateur.core.graph import Graph
from secateur.core.sensitivities import Sensitivities, units_at
from secateur.report.describe import describe
from secateur.report.sensitivity_chart import most_sensitive, sensitivity_chart
from secateur.report.standalone import standalone
from secateur.report.words import plural, significant

BATCH = 256
SHOWN_GROUPS = 40
"""So many groups are listed, the most sensitive first; the file has all."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Sensitivities, what to call the groups, and the files that were written."""

    found: Sensitivities
    names: dict[str, str]
    path: Path
    picture: Path | None

    def to_json(self) -> dict[str, Any]:
        """What the file holds, the groups' names and the files."""
        picture = None if self.picture is None else str(self.picture)
        known = json.loads(self.found.to_json())
        return {**known, "names": self.names, "path": str(self.path), "svg": picture}

    def print_on(self, console: Console) -> None:
        """As a table, the most sensitive group first."""
        lines = [f"the whole model's loss is {significant(self.found.loss)}; with part of a group"]
        ending = f"sensitivities of {plural(len(self.found.curves), 'group')} in {self.path}"
        if self.picture is not None:
            ending += f", drawn in {self.picture}"
        console.print(Stacked(*lines, "", curves_table(self.found, self.names), "", ending))


def measure(settings: SensitivitySettings) -> Measured:
    """Trace, score and measure; what is on disk already is not measured again.

    Raises: TraceError, ScoreError, ValueError, StorageError.
    """
    from secateur.criteria.score import score
    from secateur.graph import trace
    from secateur.search.sensitivity import measure_sensitivities

    depths = shares(settings.depths)
    loaded = fetch_model(settings, seed=settings.seed)
    data = fetch_data(settings.data)
    assert data is not None
    check_fits(loaded, data)
    graph = trace(loaded.model, loaded.example_inputs)
    device = next(loaded.model.parameters()).device
    seen = calibration(data, samples=settings.calibration, seed=settings.seed)
    scores = score(
        graph,
        loaded.model,
        criterion=settings.criterion,
        data=on_device(seen, device),
        loss_fn=loss_fn,
        seed=settings.seed,
    )
    x, y = (part[: settings.samples] for part in data.validation.tensors)
    batches = list(zip(torch.split(x, BATCH), torch.split(y, BATCH), strict=True))
    found = measure_sensitivities(
        loaded.model,
        graph,
        scores,
        data=on_device(batches, device) or [],
        loss_fn=loss_fn,
        depths=depths,
        path=settings.out,
        progress=lambda id, done, all: say(f"{done} of {all}: {id}"),
    )
    return _written(found, graph, settings)


def shares(depths: Sequence[str]) -> tuple[float, ...]:
    """Shares from percentages. Raises: ValueError.

    >>> shares(["12.5%", "50"])
    (0.125, 0.5)
    """
    try:
        found = tuple(sorted({float(depth.rstrip(" %")) / 100 for depth in depths}))
    except ValueError:
        raise ValueError(f"depths {', '.join(depths)}: write percentages, such as 25%") from None
    if not found or not all(0 < depth < 1 for depth in found):
        raise ValueError(f"depths {', '.join(depths)}: must lie between 0 % and 100 %")
    return found


def _written(found: Sensitivities, graph: Graph, settings: SensitivitySettings) -> Measured:
    found.save(settings.out)
    names = {one.id: one.name for one in describe(graph) if one.id in found.curves}
    if settings.svg is not None:
        write_text(settings.svg, standalone(sensitivity_chart(found, names=names)))
    return Measured(found, names, settings.out, settings.svg)


def curves_table(found: Sensitivities, names: dict[str, str]) -> Table:
    """The loss at each depth, the most sensitive group first."""
    depths = [f"-{100 * depth:g} %" for depth in found.settings["depths"]]
    rows = table("group", "units", *depths, numbers=frozenset({"units", *depths}))
    order = most_sensitive(found)
    for id in order[:SHOWN_GROUPS]:
        curve = found.curves[id]
        at = dict(zip(curve.removed, curve.loss, strict=True))
        taken = [units_at(curve.size, depth) for depth in found.settings["depths"]]
        losses = [significant(at[count]) if count in at else "" for count in taken]
        rows.add_row(names.get(id, id), f"{curve.size:,}", *losses)
    if len(order) > SHOWN_GROUPS:
        rows.add_row(f"... and {len(order) - SHOWN_GROUPS} more", *[""] * (1 + len(depths)))
    return rows
