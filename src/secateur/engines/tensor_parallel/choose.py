"""`tensor_parallel_plan`: which of a model's groups are shared out, and how many units a rank has.

Axes that stand side by side in one dimension (the parts of a fused projection) can only be shared
out together: they make a bundle. Every bundle is followed along a forward; of those that can be
shared out but exclude each other (two axes of one matrix) the heaviest choice is taken, weighed by
the parameters and the multiply-accumulates that it divides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from secateur.core.dims import Axis, Dim, axes_of
from secateur.core.errors import BudgetError, CutError, EngineError
from secateur.core.expressions import Field
from secateur.core.fingerprint import fingerprint
from secateur.core.graph import Graph, Group
from secateur.core.plan import FieldChange
from secateur.core.scales import folds_of
from secateur.engines.tensor_parallel.independent import heaviest
from secateur.engines.tensor_parallel.regions import Meetings, Refused, covered, follow
from secateur.engines.tensor_parallel.tape import Tape, record
from secateur.engines.tensor_parallel.value import TensorParallelPlan, shares
from secateur.engines.tensor_parallel.weighed import Weighed
from secateur.select.alignment import unit_steps
from secateur.select.counts import solve_counts


def tensor_parallel_plan(
    model: nn.Module, graph: Graph, example_inputs: Any, *, size: int, multiple_of: int = 1
) -> TensorParallelPlan:
    """How `size` ranks share the model out; the model is unchanged.

    graph: of this model. example_inputs: as for `trace`; the forward that they run, in training
    mode, is the one whose gradients will be right. multiple_of: of widths, on every rank.
    Whatever cannot be shared out is replicated, with the reason in `replicated`.
    Raises: EngineError when the graph is another model's, or `size` is less than one.
    """
    if size < 1 or graph.fingerprint != fingerprint(model):
        raise EngineError(
            f"size={size}: a model is shared out over one rank or more"
            if size < 1
            else f"the graph was not traced from this {type(model).__name__}; trace it again"
        )
    tapes = _tapes(model, graph, example_inputs)
    choice = _Choice(graph, tapes, size, multiple_of)
    chosen = choice.joint(choice.independent())
    return choice.plan(chosen)


def _tapes(model: nn.Module, graph: Graph, inputs: Any) -> list[Tape]:
    """The forward in training mode, which decides, and the one in evaluation mode."""
    evaluated = record(model, graph, inputs, training=False)
    try:
        return [record(model, graph, inputs, training=True), evaluated]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, KeyError):
        return [evaluated]


@dataclass(frozen=True, slots=True)
class _Bundle:
    """Axes that are shared out together."""

    axes: frozenset[int]
    weight: float


class _Choice:
    """The choice for one model."""

    def __init__(self, graph: Graph, tapes: Sequence[Tape], size: int, multiple_of: int) -> None:
        self.graph, self.tapes, self.size = graph, tapes, size
        self.groups = {group.axis.index: group for group in graph.groups}
        self.reasons: dict[int, str] = {}
        free = {index for index, group in self.groups.items() if group.pinned is None}
        self.steps = unit_steps(graph, free, multiple_of)
        lost = frozenset[int]().union(*(tape.lost for tape in tapes))
        for index, group in self.groups.items():
            why = self._unfit(group, lost)
            if why is not None:
                self.reasons[index] = why
        self.candidates = self.groups.keys() - self.reasons.keys()
        self.weighed = Weighed(graph)

    def _unfit(self, group: Group, lost: frozenset[int]) -> str | None:
        """Why a group cannot be shared out, whatever a forward does with it."""
        step = self.steps.get(group.axis.index, 1)
        if group.pinned is not None:
            return group.pinned
        if group.flags:
            return "; ".join(group.notes)
        if group.axis.index in lost:
            return "in training mode its size is another"
        if group.size // step < self.size:
            several = f" in steps of {step}" if step > 1 else ""
            return f"{group.size} units{several} are too few for {self.size} ranks"
        return None

    def independent(self) -> list[_Bundle]:
        """The heaviest bundles that exclude each other nowhere, heaviest first."""
        bundles = list(dict.fromkeys(self._bundles()))
        conflicts = _conflicts(bundles, self.tapes)
        weights = {number: bundle.weight for number, bundle in enumerate(bundles)}
        chosen = heaviest(weights, conflicts)
        for number, bundle in enumerate(bundles):
            if number not in chosen:
                self._refuse(bundle.axes, "it shares a tensor with a group that is shared out")
        return sorted((bundles[n] for n in chosen), key=lambda b: (-b.weight, min(b.axes)))

    def _bundles(self) -> Iterator[_Bundle]:
        dims = {dim for tape in self.tapes for dims in tape.dims.values() for dim in dims}
        having: dict[int, list[Dim]] = {}
        for dim in dims:
            for axis in {axis.index for axis in axes_of(dim)}:
                having.setdefault(axis, []).append(dim)
        for index in sorted(self.candidates):
            try:
                axes = _closed(index, having, self.candidates, self.groups)
                for tape in self.tapes:
                    follow(tape, axes)
            except Refused as refused:
                self._refuse({index}, str(refused))
                continue
            yield _Bundle(axes, self.weighed.of(axes))

    def _refuse(self, axes: Iterable[int], reason: str) -> None:
        for axis in axes:
            self.reasons.setdefault(axis, reason)

    def joint(self, bundles: Sequence[_Bundle]) -> list[_Bundle]:
        """Those that can be shared out at the same time, sizes and attributes included."""
        kept: list[_Bundle] = list(bundles)
        try:
            self._follow(kept)
        except Refused:
            kept = self._one_by_one(bundles)
        while kept:
            moved = self._moved(kept)
            if not moved:
                break
            for bundle in [bundle for bundle in kept if bundle.axes & moved.keys()]:
                kept.remove(bundle)
                why = next(moved[axis] for axis in sorted(bundle.axes) if axis in moved)
                self._refuse(bundle.axes, f"its shares cannot be equal enough: {why}")
        return kept

    def _one_by_one(self, bundles: Sequence[_Bundle]) -> list[_Bundle]:
        kept: list[_Bundle] = []
        for bundle in bundles:
            try:
                self._follow([*kept, bundle])
            except Refused as refused:
                self._refuse(bundle.axes, str(refused))
            else:
                kept.append(bundle)
        return kept

    def _follow(self, bundles: Sequence[_Bundle]) -> Meetings:
        """Where ranks meet: as training mode wants it, if evaluation adds up the same sums."""
        shared = frozenset[int]().union(*(bundle.axes for bundle in bundles))
        meetings, *others = [follow(tape, shared) for tape in self.tapes]
        for other in others:
            if (other.sums, other.portions) != (meetings.sums, meetings.portions):
                raise Refused("its sums are others in evaluation mode")
        return meetings

    def _bounds(self, bundles: Iterable[_Bundle]) -> dict[int, tuple[int, ...]]:
        return {
            axis: shares(self.groups[axis].size, self.size, step=self.steps.get(axis, 1))
            for bundle in bundles
            for axis in bundle.axes
        }

    def _moved(self, bundles: Sequence[_Bundle]) -> dict[int, str]:
        """Axes whose counts on some rank break an equation of the model's sizes."""
        moved: dict[int, str] = {}
        for counts in _counts(self._bounds(bundles), self.size):
            wanted = {axis: n for axis, n in counts.items() if n < self.groups[axis].size}
            try:
                solution = solve_counts(self.graph, wanted)
            except (BudgetError, CutError) as error:
                return dict.fromkeys(wanted, str(error))
            for axis, count in wanted.items():
                if solution.counts.get(axis) != count:
                    moved[axis] = solution.notes.get(axis, "an equation of sizes forbids it")
            if not moved and self._scales(counts, solution.fields):
                alone = [b for b in bundles if self._scales_alone(b, counts)] or bundles
                why = "the model makes a number of its size"
                moved = {axis: why for bundle in alone for axis in bundle.axes}
        return moved

    def _scales(self, counts: Mapping[int, int], fields: Mapping[Field, int]) -> bool:
        """Whether a number that the model makes of its sizes would be another."""
        before = self.graph.fields
        return bool(folds_of(self.graph.scales, counts, before, {**before, **fields}))

    def _scales_alone(self, bundle: _Bundle, counts: Mapping[int, int]) -> bool:
        solution = solve_counts(self.graph, {axis: counts[axis] for axis in bundle.axes})
        return self._scales(solution.counts, solution.fields)

    def plan(self, bundles: Sequence[_Bundle]) -> TensorParallelPlan:
        """The plan that shares these bundles out."""
        meetings, bounds = self._follow(bundles), self._bounds(bundles)
        own = [group for index, group in self.groups.items() if index in bounds]
        params, macs = self.weighed.shares(frozenset(bounds))
        return TensorParallelPlan(
            size=self.size,
            fingerprint=self.graph.fingerprint,
            graph_hash=self.graph.hash,
            axes={group.id: group.axis for group in own},
            bounds={group.id: bounds[group.axis.index] for group in own},
            tensors={
                name: tensor.dims
                for name, tensor in self.graph.tensors.items()
                if any(axis.index in bounds for dim in tensor.dims for axis in axes_of(dim))
            },
            changes=tuple(self._changes(counts) for counts in _counts(bounds, self.size)),
            meetings=meetings,
            replicated={
                self.groups[index].id: self.reasons[index]
                for index in self.groups
                if index not in bounds
            },
            parameters=params,
            macs=macs,
        )

    def _changes(self, counts: Mapping[int, int]) -> tuple[FieldChange, ...]:
        wanted = {axis: n for axis, n in counts.items() if n < self.groups[axis].size}
        fields: Mapping[Field, int] = solve_counts(self.graph, wanted).fields if wanted else {}
        return tuple(
            FieldChange(field, value, fields[field])
            for field, value in self.graph.fields.items()
            if fields.get(field, value) != value
        )


def _counts(bounds: Mapping[int, tuple[int, ...]], size: int) -> list[dict[int, int]]:
    """Units of each axis that each rank holds."""
    return [
        {axis: ends[rank + 1] - ends[rank] for axis, ends in bounds.items()} for rank in range(size)
    ]


def _closed(
    index: int,
    having: Mapping[int, Sequence[Dim]],
    candidates: Iterable[int],
    groups: Mapping[int, Group],
) -> frozenset[int]:
    """An axis with those that must be shared out with it. Raises: Refused.

    In every dimension that has a shared axis each part of a concatenation must have one.
    """
    allowed, axes, pending = frozenset(candidates), {index}, [index]
    while pending:
        for dim in having.get(pending.pop(), ()):
            for part in _bare_parts(dim, frozenset(axes)):
                fitting = [a.index for a in axes_of(part) if a.index in allowed]
                if not fitting:
                    raise Refused("in one dimension it stands beside what is not shared out")
                axes.add(fitting[0])
                pending.append(fitting[0])
    return frozenset(axes)


def _bare_parts(dim: Dim, shared: frozenset[int]) -> Iterator[Dim]:
    """Parts of concatenations that have no shared axis where others beside them have one."""
    if covered(dim, shared):
        return
    for factor in dim:
        if isinstance(factor, Axis) or not _has(shared, (factor,)):
            continue
        for part in factor.parts:
            if _has(shared, part):
                yield from _bare_parts(part, shared)
            else:
                yield part


def _has(axes: frozenset[int], dim: Dim) -> bool:
    return any(axis.index in axes for axis in axes_of(dim))


def _conflicts(bundles: Sequence[_Bundle], tapes: Iterable[Tape]) -> dict[int, set[int]]:
    """Bundles that occur in one tensor, by their numbers."""
    owners: dict[int, list[int]] = {}
    for number, bundle in enumerate(bundles):
        for axis in bundle.axes:
            owners.setdefault(axis, []).append(number)
    found: dict[int, set[int]] = {number: set() for number in range(len(bundles))}
    for dims in {dims for tape in tapes for dims in tape.dims.values()}:
        axes = {axis.index for dim in dims for axis in axes_of(dim)}
        together = {number for axis in axes for number in owners.get(axis, ())}
        for number in together:
            found[number] |= together - {number}
    return found
