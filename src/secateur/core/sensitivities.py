"""Sensitivities: what the model loses with each group's units, at a few depths, as a value.

`search.sensitivity` measures them; a selector reads from them how much one unit more costs. Units
go in the order of their scores, so every unit is taken to cost at least as much as the one before:
the curve through the measured depths is made convex, and what noise there is is averaged out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from secateur.core.atomic import write_text
from secateur.core.errors import PlanMismatchError

Float64Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Curve:
    """One group: its units, how many of them were removed (ascending, those of the lowest scores
    first), and the loss and the metric of the model then. metric: None where none was asked for."""

    size: int
    removed: tuple[int, ...]
    loss: tuple[float, ...]
    metric: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Sensitivities:
    """Curves by group id, and the whole model's loss and metric. settings: how it was measured."""

    graph_hash: str
    loss: float
    curves: Mapping[str, Curve]
    metric: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def rises(self, scores: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """For each group of `scores`: what each of its units costs, as `unit_rises` says, given to
        the units in the order of their scores. Float64, never below zero.

        Raises: PlanMismatchError for a group that was not measured, or is of another size.
        """
        found = {}
        for id, values in scores.items():
            curve = self.curves.get(id)
            if curve is None or curve.size != len(values):
                known = "was not measured" if curve is None else f"had {curve.size} units"
                raise PlanMismatchError(
                    f"the sensitivities are of another trace: group {id!r} of {len(values)} units "
                    f"{known}; call measure_sensitivities(model, graph, scores, data=...) again"
                )
            rise_U = torch.empty(curve.size, dtype=torch.float64)
            order = values.argsort(stable=True)
            rise_U[order] = torch.from_numpy(unit_rises(curve, self.loss))
            found[id] = rise_U
        return found

    def price(self, counts: Mapping[str, int]) -> float:
        """What it costs that groups keep so many units, all `unit_rises` added up: a figure to
        compare plans by."""
        return sum(
            float(unit_rises(self.curves[id], self.loss)[: self.curves[id].size - count].sum())
            for id, count in counts.items()
        )

    @property
    def hash(self) -> str:
        """SHA-256 of the JSON."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def to_json(self) -> str:
        """Deterministic JSON text."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Sensitivities:
        """Inverse of `to_json`. Raises: PlanMismatchError when the text is something else."""
        try:
            body: dict[str, Any] = json.loads(text)
            curves = {
                id: Curve(
                    one["size"],
                    tuple(one["removed"]),
                    tuple(one["loss"]),
                    None if one["metric"] is None else tuple(one["metric"]),
                )
                for id, one in body["curves"].items()
            }
            return cls(body["graph_hash"], body["loss"], curves, body["metric"], body["settings"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanMismatchError(
                f"these are no sensitivities ({type(error).__name__}: {error}); "
                "measure some with `secateur sensitivity MODEL --data DATA -o sensitivities.json`"
            ) from None

    def save(self, path: str | Path) -> None:
        """Write the JSON beside `path`, then rename it into place."""
        write_text(Path(path), self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> Sensitivities:
        """Read what `save` wrote. Raises: PlanMismatchError, FileNotFoundError."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


def units_at(size: int, depth: float) -> int:
    """How many of a group's units go at a depth: one at least, and one at least stays.

    >>> units_at(64, 0.125), units_at(3, 0.9), units_at(1, 0.5)
    (8, 2, 0)
    """
    return min(max(1, round(size * depth)), size - 1)


def unit_rises(curve: Curve, dense: float) -> Float64Array:
    """What each unit that goes costs, the first one first; never descending.

    Between two measured depths a unit costs the same on average; these averages are made ascending
    (isotonic regression), lie in the middle between the depths, and are joined by straight lines,
    the last of which goes on to the whole group. They were measured with all other groups whole,
    which carry much of what one group loses; as all become narrow nothing does. So what a unit
    costs is divided by the square of the share of units that were left, as for a loss that grows
    with the inverse of that share.

    >>> unit_rises(Curve(4, (2, 4), (1.0, 5.0)), 1.0).tolist()
    [0.0, 0.8888888888888888, 6.0, 40.0]
    """
    removed = np.array([0, *curve.removed], np.float64)
    losses = np.array([dense, *curve.loss])
    widths = np.diff(removed)
    slopes = ascending(np.diff(losses) / widths, widths)
    middles = removed[:-1] + widths / 2
    at = np.arange(curve.size) + 0.5
    rises = np.interp(at, middles, slopes)
    if len(middles) > 1:
        first = (slopes[1] - slopes[0]) / (middles[1] - middles[0])
        last = (slopes[-1] - slopes[-2]) / (middles[-1] - middles[-2])
        rises = np.where(at < middles[0], slopes[0] - first * (middles[0] - at), rises)
        rises = np.where(at > middles[-1], slopes[-1] + last * (at - middles[-1]), rises)
    left = (curve.size - np.arange(curve.size)) / curve.size
    found: Float64Array = np.maximum(rises, 0.0) / left**2
    return found


def ascending(
    values: Sequence[float] | Float64Array, weights: Sequence[float] | Float64Array
) -> Float64Array:
    """The nearest ascending values in weighted least squares: neighbours that descend are averaged.

    Source: pool adjacent violators, Ayer et al. 1955.

    >>> ascending([1.0, 5.0, 2.0], [1.0, 1.0, 2.0]).tolist()
    [1.0, 3.0, 3.0]
    """
    pools: list[tuple[float, float, int]] = []
    for value, weight in zip(values, weights, strict=True):
        pools.append((float(value), float(weight), 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, m, k), (b, n, j) = pools[-2:]
            pools[-2:] = [((a * m + b * n) / (m + n), m + n, k + j)]
    return np.array([mean for mean, _, count in pools for _ in range(count)])
