"""Statistics of the units' activations over calibration data, summed while the model runs.

A unit's activations are what the next layers read of it: the inputs of the products that sum over
the group's axis, behind the nonlinearity. A group that no weight reads, such as the width of
queries and keys, has those of what its own layers make. Averaged over the places.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import unit_rows
from secateur.core.errors import ScoreError
from secateur.core.graph import Graph, Group
from secateur.core.world import ALONE, World
from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.matrices import UnitActivations, parameter_members
from secateur.criteria.running import run_batches


@dataclass(frozen=True, slots=True)
class _Place:
    """Name and dimension of a weight, and whether its product reads that dimension or makes it."""

    name: str
    dim: int
    reads: bool

    def __str__(self) -> str:
        return f"{self.name} {self.dim} {self.reads}"


_STATISTICS = ("mean_U", "magnitude_U", "square_U", "zero_U")
Places = Mapping[str, UnitActivations]
"""Of each index of one dimension of a weight; by the place, as text."""


def activations_at(model: nn.Module, data: Iterable[Any], *, world: World = ALONE) -> Places:
    """Statistics of what every weight reads and makes, over all ranks' batches. Raises: ScoreError
    when there is no batch, or an activation is NaN or infinite."""
    parameters = dict(model.named_parameters())
    sums = ExactSums()

    def seen(use: Use) -> None:
        for dim, reads, values_CN in _features(use, parameters[use.name]):
            if not values_CN.isfinite().all():
                raise ScoreError(
                    f"what {use.name} {'reads' if reads else 'makes'} holds NaN or infinite values "
                    "on this data; check the calibration data, or run the model in float32"
                )
            found_4C = _sums_of(values_CN).cpu()
            sums.add_one_(str(_Place(use.name, dim, reads)), found_4C, count=values_CN.shape[1])

    with watched_uses(model, seen):
        run_batches(model, data)
    sums.reduce_(world, what="statistics of activations")
    places = {}
    for place in list(sums):
        total_4C, count = sums.take(place)
        places[place] = UnitActivations(*(total_4C / count))
    return places


def _sums_of(values_CN: Tensor) -> Tensor:
    """The sum of the activations, of their magnitudes and squares, and how many are zero."""
    found = (values_CN, values_CN.abs(), values_CN.square(), values_CN == 0)
    return torch.stack([one.sum(1, dtype=torch.float64) for one in found])


def unit_activations(graph: Graph, group: Group, places: Places) -> UnitActivations | None:
    """The statistics of a group's units, or None where no product reads or makes it."""
    for reads in (True, False):
        found = []
        for member in parameter_members(graph, group):
            place = places.get(str(_Place(member.tensor, member.dim, reads)))
            if place is not None:
                dim = graph.tensors[member.tensor].dims[member.dim]
                for which in _STATISTICS:
                    rows = unit_rows(getattr(place, which), 0, dim, group.axis)
                    found += [(which, part.mean(1)) for part in rows]
        if found:
            return UnitActivations(
                *(
                    torch.stack([part for name, part in found if name == which]).mean(0)
                    for which in _STATISTICS
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
