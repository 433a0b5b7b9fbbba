"""Latency of a graph for any unit counts, from measured times of its modules at several widths.

A forward's time is the sum of what each module takes by itself. Of each module it is known at a few
amounts of work (multiply-accumulates, or bytes moved where it has none); between these it is
interpolated, so the steps that the hardware has at the measured widths are in it. `search.timing`
measures; what is here only predicts, and can be kept and read again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.core.cost import Cost
from secateur.core.dims import Counts
from secateur.core.errors import PlanMismatchError
from secateur.core.graph import Graph
from secateur.cost.counted import CostModel
from secateur.cost.sizes import SizeTable

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sample:
    """One measured model: the units that each axis kept, the milliseconds of a forward, and by
    module path what it took by itself (the sum of them is `whole_ms`)."""

    counts: Mapping[int, int]
    whole_ms: float
    own_ms: Mapping[str, float]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Sample:
        """From its fields as JSON has them, where all keys are text."""
        return cls(
            {int(axis): int(count) for axis, count in body["counts"].items()},
            float(body["whole_ms"]),
            {str(path): float(ms) for path, ms in body["own_ms"].items()},
        )


@dataclass(frozen=True, slots=True)
class Timings:
    """What was measured on a device: samples of one graph, and the conditions they hold under.

    conditions: runtime, batch, threads, hardware and the like. error: the median relative error of
    predicting each sample from the others.
    """

    graph_hash: str
    samples: tuple[Sample, ...]
    conditions: Mapping[str, str]
    error: float | None = None

    def to_json(self) -> str:
        """The timings as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Timings:
        """Inverse of `to_json`. Raises: ValueError when the text is something else."""
        try:
            body: dict[str, Any] = json.loads(text)
            samples = tuple(Sample.from_json(sample) for sample in body["samples"])
            return cls(body["graph_hash"], samples, dict(body["conditions"]), body["error"])
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not timings of a device: {error!r}") from None


@dataclass(frozen=True, slots=True)
class Shares:
    """Of a forward's time: the work that cuts shrink, what the modules that do it take without any
    (calls, and sizes that stay), and the modules that no cut changes."""

    work: float
    calls: float
    unchanged: float


class LatencyModel:
    """Milliseconds of a forward for unit counts, compiled for repeated evaluation."""

    def __init__(self, graph: Graph, timings: Timings) -> None:
        self.timings = timings
        self._table = SizeTable()
        paths = list(dict.fromkeys(path for s in timings.samples for path in s.own_ms))
        terms = _work(graph, self._table)
        slots = [list(terms.get(path, {}).items()) or [(0, 1)] for path in paths]
        self._slots = np.array([slot for own in slots for slot, _ in own], np.int64)
        self._weights = np.array([weight for own in slots for _, weight in own], np.float64)
        self._starts = np.cumsum([0, *(len(own) for own in slots)])[:-1]
        works = np.array([self._works(s.counts) for s in timings.samples]).T
        times = np.array([[s.own_ms.get(path, 0.0) for s in timings.samples] for path in paths])
        self._knots, self._times = _curves(works, times)
        self._rows = np.arange(len(paths))

    def latency_ms(self, counts: Counts) -> float:
        """The predicted milliseconds of one forward."""
        work, knots, times = self._works(counts), self._knots, self._times
        left = np.clip((knots <= work[:, None]).sum(1) - 1, 0, knots.shape[1] - 2)
        low, high = knots[self._rows, left], knots[self._rows, left + 1]
        start, stop = times[self._rows, left], times[self._rows, left + 1]
        share = np.divide(work - low, high - low, out=np.zeros_like(work), where=high > low)
        return float(np.maximum(start + (stop - start) * share, 0.0).sum())

    def shares(self) -> Shares:
        """What the whole model's forward is made of, as far as the samples tell it apart."""
        whole = self._works({})
        rows = zip(whole, self._knots, self._times, strict=True)
        times = np.array([np.interp(w, k, t) for w, k, t in rows])
        moves = self._knots[:, 1] < self._knots[:, -1]
        calls = np.where(moves, np.minimum(self._times[:, 0], times), 0.0)
        parts = (times[moves].sum() - calls.sum(), calls.sum(), times[~moves].sum())
        work, calling, still = (float(part / times.sum()) for part in parts)
        return Shares(work, calling, still)

    def _works(self, counts: Counts) -> Float64Array:
        values = self._table.evaluate(counts)[self._slots] * self._weights
        work: Float64Array = np.add.reduceat(values, self._starts)
        return work


def _work(graph: Graph, table: SizeTable) -> dict[str, dict[int, int]]:
    """By module path, the slots whose weighted sum is the work that it does by itself."""
    macs: dict[str, dict[int, int]] = {}
    moved: dict[str, dict[int, int]] = {}
    for op in graph.ops:
        _add(macs.setdefault(op.module, {}), ((table.add_product(term), 1) for term in op.macs))
        values = (*op.inputs, *op.outputs)
        sizes = ((table.add_product(value.dims), value.itemsize) for value in values)
        _add(moved.setdefault(op.module, {}), sizes)
    return {path: own or moved[path] for path, own in macs.items()}


def _add(terms: dict[int, int], more: Iterable[tuple[int, int]]) -> None:
    for slot, weight in more:
        terms[slot] = terms.get(slot, 0) + weight


def _curves(works: Float64Array, times: Float64Array) -> tuple[Float64Array, Float64Array]:
    """Knots by ascending work; more work never takes less time, by isotonic regression.

    In front stands a knot at no work: what a call takes by itself, drawn through the two smallest.
    """
    order = np.argsort(works, axis=1, kind="stable")
    knots = np.take_along_axis(works, order, 1)
    ascending = np.array([_isotonic(row) for row in np.take_along_axis(times, order, 1)])
    first, second = knots[:, 0], knots[:, 1]
    slope = np.divide(
        ascending[:, 1] - ascending[:, 0],
        second - first,
        out=np.zeros_like(first),
        where=second > first,
    )
    rest = np.clip(ascending[:, 0] - slope * first, 0.0, ascending[:, 0])
    return np.insert(knots, 0, 0.0, axis=1), np.insert(ascending, 0, rest, axis=1)


def _isotonic(values: Float64Array) -> Float64Array:
    """The nearest ascending values in least squares: neighbours that descend are averaged.

    Source: pool adjacent violators, Ayer et al. 1955.

    >>> _isotonic(np.array([1.0, 3.0, 2.0, 4.0])).tolist()
    [1.0, 2.5, 2.5, 4.0]
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        pools.append((float(value), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m), (b, n) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n)]
    return np.array([mean for mean, count in pools for _ in range(count)])


class TimedCosts(CostModel):
    """Counted costs with the predicted latency beside them, so that budgets may speak of it.

    correction: what predictions are multiplied by, after a whole cut model was measured. Raises:
    PlanMismatchError for timings of another graph.
    """

    def __init__(self, graph: Graph, timings: Timings, *, correction: float = 1.0) -> None:
        super().__init__(graph)
        if timings.graph_hash != graph.hash:
            raise PlanMismatchError(
                "the timings are of another model or trace; call time_device for this one"
            )
        self._latency = LatencyModel(graph, timings)
        self._correction = correction
        self._dense = self._latency.latency_ms({})

    def cost(self, counts: Counts) -> Cost:
        """Counted figures and milliseconds; the whole model's are as measured."""
        predicted = self._latency.latency_ms(counts)
        share = 1.0 - predicted / self._dense
        # the correction is that of a cut: nothing cut, nothing corrected
        corrected = predicted * (1.0 + (self._correction - 1.0) * min(1.0, 4.0 * share))
        return replace(super().cost(counts), latency_ms=corrected)
