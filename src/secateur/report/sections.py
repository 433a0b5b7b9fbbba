"""What each section of the page shows, as plain values for the template.

Strings stay unescaped here: the template escapes every one of them. Only drawings are marked as
safe, and `svg` has escaped what they hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from secateur.core.proof import Proof
from secateur.report.charts import Bar, bar_chart, dot_chart, histogram_chart, spread_chart
from secateur.report.explain import GroupRow, Histogram, Width
from secateur.report.line_chart import Line, line_chart
from secateur.report.result import Curve, Result
from secateur.report.row import ModelRow
from secateur.report.verdict import faster, gain
from secateur.report.widths_chart import widths_chart
from secateur.report.words import (
    DASH,
    TIMES,
    amount,
    change,
    factor,
    milliseconds,
    percent,
    plural,
    points,
    rate,
    scientific,
    significant,
    size,
)


@dataclass(frozen=True, slots=True)
class Tile:
    """A figure worth reading from across the room."""

    label: str
    figure: str
    unit: str
    detail: str


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing and the words beside it."""

    caption: str
    note: str
    drawing: Markup


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the comparison: how to read the figure from a row, write it and compare it."""

    caption: str
    note: str
    read: Callable[[ModelRow], float | None]
    write: Callable[[float | None], str]
    compare: Callable[[float | None, float | None], str] = change


COLUMNS = (
    Column("Parameters", "fewer is smaller", lambda row: row.params, amount),
    Column("MACs", "multiply-accumulates of one forward", lambda row: row.macs, amount),
    Column("Zeros", "weights that are zero", lambda row: row.zeros or None, amount),
    Column("Size", "weights and buffers", lambda row: row.size_bytes, size),
    Column("Peak memory", "weights and activations", lambda row: row.peak_memory_bytes, size),
    Column("Latency", "median of one forward", lambda row: row.latency_ms, milliseconds),
    Column("Throughput", "samples per second", lambda row: row.throughput_per_s, rate),
    Column("Accuracy", "held-out; axis not from zero", lambda row: row.accuracy, percent, points),
)


MANY_LAYERS = 12


def columns(result: Result) -> tuple[Column, ...]:
    """The columns in which at least one model has a figure."""
    return tuple(
        column for column in COLUMNS if any(column.read(row) is not None for row in result.rows)
    )


def colour(name: str) -> str:
    """The class that colours a model."""
    return name if name in ("dense", "pruned", "random") else "extra"


def tiles(result: Result) -> tuple[Tile, ...]:
    """The pruned model in six figures."""
    dense, pruned = result.dense, result.pruned
    found = [
        _ratio_tile("Parameters", dense.params, pruned.params, amount),
        _ratio_tile("MACs", dense.macs, pruned.macs, amount),
        _ratio_tile("Size", dense.size_bytes, pruned.size_bytes, size),
    ]
    gained = gain(result, pruned)
    if gained is not None and pruned.latency is not None:
        number, _, unit = faster(gained).partition(" times ")
        detail = f"{milliseconds(dense.latency_ms)} → {milliseconds(pruned.latency_ms)}"
        batch = f"{detail}, batch {pruned.latency.batch}"
        found.append(Tile("Latency", f"{number}{TIMES}" if unit else number, unit, batch))
    if pruned.accuracy is not None:
        difference = points(pruned.accuracy, dense.accuracy)
        detail = f"dense {percent(dense.accuracy)}" + (
            f", {difference}" if difference not in ("", "=") else ""
        )
        found.append(Tile("Accuracy", percent(pruned.accuracy), "", detail))
    if result.proof is not None:
        checked = f"largest difference, {plural(result.proof.groups_checked, 'group')} checked"
        found.append(Tile("Proof", scientific(result.proof.max_abs_error), "", checked))
    return tuple(found)


def comparison(result: Result) -> tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...]:
    """Rows of the table: name, colour, and (figure, difference from dense) for each column."""
    return tuple(
        (
            row.name,
            colour(row.name),
            tuple(
                (
                    column.write(column.read(row)),
                    ""
                    if row is result.dense
                    else column.compare(column.read(row), column.read(result.dense)),
                )
                for column in columns(result)
            ),
        )
        for row in result.rows
    )


def bar_figures(result: Result) -> tuple[Figure, ...]:
    """One chart a column; throughput, the inverse of latency, only where there is room."""
    measured = columns(result)
    if len(measured) > 6:
        measured = tuple(column for column in measured if column.caption != "Throughput")
    found = []
    for column in measured:
        bars = [
            Bar(row.name, colour(row.name), column.read(row), column.write(column.read(row)))
            for row in result.rows
        ]
        draw = dot_chart if column.caption == "Accuracy" else bar_chart
        found.append(Figure(column.caption, column.note, Markup(draw(column.caption, bars))))
    return tuple(found)


def spread_figure(result: Result) -> Figure | None:
    """Latency of every round, and the conditions they were measured under."""
    measured = [(r.name, colour(r.name), r.latency) for r in result.rows if r.latency is not None]
    if not measured:
        return None
    first = measured[0][2]
    note = (
        f"batch {first.batch}, {plural(first.threads, 'thread')}, {first.device}, {first.dtype}, "
        f"{len(first.samples_ms)} rounds, models taking turns, on {first.hardware}"
    )
    return Figure("Every round", note, Markup(spread_chart(measured)))


def widths_figure(widths: Sequence[Width]) -> Figure | None:
    """All layers in one picture; None where the bars beside their names show as much."""
    if len(widths) < MANY_LAYERS:
        return None
    cut = sum(width.after < width.before for width in widths)
    note = (
        f"{cut} of {plural(len(widths), 'layer')} cut; square-root scale; a layer's name is under "
        "the pointer"
    )
    return Figure("From the first layer to the last", note, Markup(widths_chart(widths)))


def score_figures(histograms: Sequence[Histogram]) -> tuple[Figure, ...]:
    """One histogram a group."""
    return tuple(
        Figure(
            each.group,
            f"{sum(each.kept):,} of {sum(each.kept) + sum(each.removed):,} kept",
            Markup(histogram_chart(each)),
        )
        for each in histograms
    )


def curve_figures(curves: Sequence[Curve]) -> tuple[Figure, ...]:
    """Loss and accuracy over epochs."""
    loss = [Line(c.name, colour(c.name), c.loss) for c in curves if c.loss]
    accuracy = [Line(c.name, colour(c.name), c.accuracy) for c in curves if c.accuracy]
    found = []
    if loss:
        picture = line_chart("Training loss", loss, written=significant, from_zero=True)
        found.append(Figure("Training loss", "", Markup(picture)))
    if accuracy:
        picture = line_chart("Held-out accuracy", accuracy, written=percent, from_zero=False)
        found.append(Figure("Held-out accuracy", "axis not from zero", Markup(picture)))
    return tuple(found)


def status(group: GroupRow) -> str:
    """ "cut", "pinned" or "whole" (free, but nothing was removed)."""
    if group.kept < group.size:
        return "cut"
    return "pinned" if group.pinned is not None else "whole"


def ordered_groups(
    groups: Sequence[GroupRow], proof: Proof | None
) -> tuple[tuple[GroupRow, str, str], ...]:
    """Groups with their status and proof: cut ones first, pinned ones last."""
    order = ("cut", "whole", "pinned")
    by_status = sorted(groups, key=lambda group: order.index(status(group)))
    return tuple((group, status(group), proved(group, proof)) for group in by_status)


def proved(group: GroupRow, proof: Proof | None) -> str:
    """How the cut of a group was proved."""
    if status(group) != "cut" or proof is None:
        return DASH
    if group.id in proof.reasons:
        return "shapes"
    return "numbers, corrected" if group.id in proof.corrected else "numbers"


def settings(values: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Settings as names and short JSON."""
    return tuple(
        (name, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
        for name, value in values.items()
        if value is not None
    )


def _ratio_tile(
    label: str, dense: float, pruned: float, write: Callable[[float | None], str]
) -> Tile:
    ratio = dense / pruned if pruned else float("inf")
    figure, unit = f"{factor(ratio)}{TIMES}", "smaller" if label == "Size" else "fewer"
    if ratio < 1.0:
        figure, unit = f"{factor(1 / ratio)}{TIMES}", "larger" if label == "Size" else "more"
    if dense == pruned:
        figure, unit = "=", "unchanged"
    return Tile(label, figure, unit, f"{write(dense)} → {write(pruned)}")
