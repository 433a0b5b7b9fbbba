"""Statistics of the units' activations over calibration data, summed while the model runs.

A unit's activations are what the next layers read of it: the inputs of the products that sum over
the group's axis, behind the nonlinearity. A group that no weight reads, such as the width of
queries and keys, has those of what its own layers make. Averaged over the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import unit_rows
from secateur.core.errors import ScoreError
from secateur.core.graph import Graph, Group
from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.matrices import UnitActivations, parameter_members
from secateur.criteria.running import run_batches


@dataclass
class _Sums:
    """Of each index of one dimension of a weight: sums over all positions, in float64."""

    sums: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def add(self, values_CN: Tensor) -> None:
        found = {
            "mean": values_CN.sum(1, dtype=torch.float64),
            "magnitude": values_CN.abs().sum(1, dtype=torch.float64),
            "square": values_CN.square().sum(1, dtype=torch.float64),
            "zero": (values_CN == 0).sum(1).double(),
        }
        self.sums = {name: self.sums.get(name, 0) + one.cpu() for name, one in found.items()}
        self.count += values_CN.shape[1]


Places = Mapping[tuple[str, int, bool], _Sums]
"""By the weight's name and dimension, and whether its product reads that dimension or makes it."""


def activations_at(model: nn.Module, data: Iterable[Any]) -> Places:
    """Statistics of what every weight reads and makes. Raises: ScoreError when there is no batch,
    or an activation is NaN or infinite."""
    parameters = dict(model.named_parameters())
    places: dict[tuple[str, int, bool], _Sums] = {}

    def seen(use: Use) -> None:
        for dim, reads, values_CN in _features(use, parameters[use.name]):
            if not values_CN.isfinite().all():
                raise ScoreError(
                    f"what {use.name} {'reads' if reads else 'makes'} holds NaN or infinite values "
                    "on this data; check the calibration data, or run the model in float32"
                )
            places.setdefault((use.name, dim, reads), _Sums()).add(values_CN)

    with watched_uses(model, seen):
        run_batches(model, data)
    return places


def unit_activations(graph: Graph, group: Group, places: Places) -> UnitActivations | None:
    """The statistics of a group's units, or None where no product reads or makes it."""
    for reads in (True, False):
        found = []
        for member in parameter_members(graph, group):
            place = places.get((member.tensor, member.dim, reads))
            if place is not None:
                dim = graph.tensors[member.tensor].dims[member.dim]
                for name in place.sums:
                    rows = unit_rows(place.sums[name] / place.count, 0, dim, group.axis)
                    found += [(name, part.mean(1)) for part in rows]
        if found:
            return UnitActivations(
                *(
                    torch.stack([part for name, part in found if name == which]).mean(0)
                    for which in ("mean", "magnitude", "square", "zero")
                )
            )
    return None


def _features(use: Use, parameter: Tensor) -> list[tuple[int, bool, Tensor]]:
    """What a use reads and makes, as [features, positions], with the parameter's dimension that
    they run along; nothing of a use that takes only a part of that dimension."""
    if use.window is not None:
        read_CN, made_CN = (t.movedim(1, 0).flatten(1) for t in (use.read, use.made))
        if use.window.groups == 1:
            return [(1, True, read_CN), (0, False, made_CN)]
        depthwise = use.window.groups == len(read_CN) == len(made_CN)
        return [(0, True, read_CN)] if depthwise else [(0, False, made_CN)]
    found = []
    for k, reads, values in ((0, True, use.read), (1, False, use.made)):
        dim = dim_of(use.weight, k, parameter)
        if dim is not None:
            found.append((dim, reads, values.T))
    return found


def dim_of(weight: Tensor, k: int, parameter: Tensor) -> int | None:
    """The dimension of the parameter that dimension k of a part of it is all of."""
    for dim in range(parameter.dim()):
        same = parameter.stride(dim) == weight.stride(k)
        if same and parameter.shape[dim] == weight.shape[k]:
            return dim
    return None
