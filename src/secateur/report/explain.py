"""What was cut and why, reduced from graph, plan and scores to plain data for the report.

Widths say how wide each layer was and is; groups say what is coupled, what is pinned and for
which reason; score histograms say which units the criterion held for least important.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from secateur.core.dims import Counts, Dim, axes_of, dim_size, new_size
from secateur.core.graph import Call, Graph, TensorType
from secateur.core.plan import Plan, Scores
from secateur.report.members import compact_members

BINS = 24
LOG_SPAN = 100.0
"""Scores whose largest is this many times the smallest are shown on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Width:
    """Units in a layer's output before and after the cut."""

    layer: str
    kind: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group as the report shows it: `kept` of `size` units; members written short."""

    id: str
    size: int
    kept: int
    members: tuple[str, ...]
    member_count: int
    flags: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pinned: str | None = None
    structural: bool = False


@dataclass(frozen=True, slots=True)
class Histogram:
    """Scores of one group's units: how many kept and removed in each bin from low to high.

    With `log`, low and high are exponents of ten.
    """

    group: str
    low: float
    high: float
    log: bool
    kept: tuple[int, ...]
    removed: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Widths in order of the forward, groups in order of the graph, scores of cut groups first."""

    widths: tuple[Width, ...] = ()
    groups: tuple[GroupRow, ...] = ()
    scores: tuple[Histogram, ...] = ()
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Fields, values as dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Explanation:
        """Inverse of `to_json`."""
        return cls(
            widths=tuple(Width(**each) for each in body["widths"]),
            groups=tuple(GroupRow(**_tuples(each)) for each in body["groups"]),
            scores=tuple(Histogram(**_tuples(each)) for each in body["scores"]),
            warnings=tuple(body["warnings"]),
        )


def explain(plan: Plan, *, graph: Graph | None = None, scores: Scores | None = None) -> Explanation:
    """Everything the report tells about the cut; without a graph only what the plan holds."""
    warnings = list(plan.notes)
    if graph is None:
        widths, groups = _widths_of_plan(plan), _groups_of_plan(plan)
    else:
        widths, groups = _widths_of_graph(graph, plan.counts()), _groups_of_graph(graph, plan)
        warnings += graph.warnings
        warnings += [
            f"operator {name} has no rule ({count} times); what it touches was left whole"
            for name, count in graph.unknown_ops.items()
        ]
    return Explanation(widths, groups, _histograms(plan, scores or {}), tuple(warnings))


def _widths_of_graph(graph: Graph, counts: Counts) -> tuple[Width, ...]:
    """One width for each module with a matrix of its own, in the order in which modules ran."""
    matrices: dict[str, list[TensorType]] = {}
    for name, tensor in graph.tensors.items():
        if tensor.is_parameter and len(tensor.dims) >= 2:
            matrices.setdefault(name.rpartition(".")[0], []).append(tensor)
    widths: dict[str, Width] = {}
    for call in graph.calls:
        if call.module not in matrices or call.module in widths:
            continue
        dim = _feature_dim(call, matrices[call.module])
        if dim is not None:
            widths[call.module] = _width(call.module, call.kind, dim, counts)
    for layer in matrices:  # parameters that a parent uses without calling their module
        if layer not in widths:
            widths[layer] = _width(layer, "", matrices[layer][0].dims[0], counts)
    return tuple(widths.values())


def _feature_dim(call: Call, matrices: Sequence[TensorType]) -> Dim | None:
    """The last output dimension that shares an axis with a matrix of the module.

    Linear and Conv2d store [out, in], a Hugging Face Conv1D [in, out]: this needs no table.
    """
    own = {axis for tensor in matrices for dim in tensor.dims for axis in axes_of(dim)}
    for dims in call.outputs:
        for dim in reversed(dims):
            if own.intersection(axes_of(dim)):
                return dim
    return None


def _width(layer: str, kind: str, dim: Dim, counts: Counts) -> Width:
    return Width(layer or "(model)", kind, dim_size(dim), new_size(dim, counts))


def _widths_of_plan(plan: Plan) -> tuple[Width, ...]:
    counts = plan.counts()
    return tuple(
        _width(name.rpartition(".")[0], "", dims[0], counts)
        for name, dims in plan.tensors.items()
        if len(dims) >= 2
    )


def _groups_of_graph(graph: Graph, plan: Plan) -> tuple[GroupRow, ...]:
    return tuple(
        GroupRow(
            id=group.id,
            size=group.size,
            kept=len(plan.keep[group.id]) if group.id in plan.keep else group.size,
            members=compact_members(group.members),
            member_count=len(group.members),
            flags=tuple(sorted(group.flags)),
            notes=tuple(group.notes),
            pinned=group.pinned,
            structural=group.structural,
        )
        for group in graph.groups
    )


def _groups_of_plan(plan: Plan) -> tuple[GroupRow, ...]:
    return tuple(
        GroupRow(
            id=id,
            size=axis.size,
            kept=len(plan.keep[id]),
            members=(),
            member_count=0,
            flags=() if id in plan.exact else ("inexact",),
            notes=(plan.inexact[id],) if id in plan.inexact else (),
        )
        for id, axis in plan.axes.items()
    )


def _histograms(plan: Plan, scores: Scores) -> tuple[Histogram, ...]:
    """Of every scored group, those that lose most units first."""
    lost = {id: plan.axes[id].size - len(units) for id, units in plan.keep.items()}
    order = sorted(scores, key=lambda id: -lost.get(id, 0))
    return tuple(_histogram(id, scores[id], plan.keep.get(id)) for id in order)


def _histogram(group: str, scores: Tensor, keep: Sequence[int] | None) -> Histogram:
    values = torch.nan_to_num(scores.detach().to("cpu", torch.float64).flatten())
    kept = torch.ones(len(values), dtype=torch.bool)
    if keep is not None:
        kept = torch.zeros(len(values), dtype=torch.bool)
        kept[list(keep)] = True
    positive = values[values > 0]
    log = bool(len(positive) and values.min() >= 0 and values.max() > LOG_SPAN * positive.min())
    if log:  # a score of zero stands in the lowest bin
        values = values.clamp(min=float(positive.min())).log10()
    low, high = float(values.min()), float(values.max())
    span = (low, high) if high > low else (low - 0.5, high + 0.5)
    return Histogram(
        group, low, high, log, _bin_counts(values[kept], span), _bin_counts(values[~kept], span)
    )


def _bin_counts(values: Tensor, span: tuple[float, float]) -> tuple[int, ...]:
    place = ((values - span[0]) / (span[1] - span[0]) * BINS).long().clamp(0, BINS - 1)
    return tuple(torch.bincount(place, minlength=BINS).tolist())


def _tuples(body: Mapping[str, Any]) -> dict[str, Any]:
    """JSON arrays back to tuples."""
    return {key: tuple(value) if isinstance(value, list) else value for key, value in body.items()}
