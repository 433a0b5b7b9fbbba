"""Where the units of each group lie in the weights, for penalties that are taken per unit.

A site is a dimension of a parameter in which a group's axis occurs, with the unit of each of its
indices. Sums over units and factors per unit are then one scatter or gather a site.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from secateur.core.dims import Axis, Concat, Dim, dim_size, unit_rows
from secateur.core.fingerprint import named_tensors
from secateur.core.graph import Graph
from secateur.core.plan import Plan

NOTHING = 1e-20  # squares and products of such weights are below the smallest normal number


@dataclass(frozen=True, slots=True)
class Site:
    """unit_of: for each index of the dimension its unit; the number of units where it has none,
    as where only a part of a concatenation is the group's."""

    tensor: str
    dim: int
    unit_of: Tensor


@dataclass(frozen=True, slots=True)
class UnitSites:
    """A group's units and all of their sites."""

    units: int
    sites: tuple[Site, ...]

    def squares(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Each unit's sum of squared weights, and how many weights it has."""
        device = tensors[self.sites[0].tensor].device
        total_U = torch.zeros(self.units + 1, device=device)
        count_U = torch.zeros(self.units + 1, device=device)
        for site in self.sites:
            weight = tensors[site.tensor].detach().float()
            others = [k for k in range(weight.ndim) if k != site.dim]
            square = weight.square()
            index = site.unit_of.to(device)
            total_U.index_add_(0, index, square.sum(others) if others else square)
            each = torch.full((len(index),), weight.numel() / len(index), device=device)
            count_U.index_add_(0, index, each)
        return total_U[:-1], count_U[:-1]

    def add_to_gradients_(self, tensors: Mapping[str, Tensor], factor_U: Tensor) -> None:
        """``g <- g + factor_u w`` for every weight w of unit u; frozen parameters are left out."""
        factor_U = torch.cat([factor_U, factor_U.new_zeros(1)])
        for site in self.sites:
            weight = tensors[site.tensor]
            if weight.grad is None:
                continue
            along = [-1 if k == site.dim else 1 for k in range(weight.ndim)]
            factor = factor_U[site.unit_of.to(factor_U.device)].reshape(along)
            weight.grad.addcmul_(weight.detach(), factor.to(weight.dtype))

    def flush_(self, tensors: Mapping[str, Tensor], chosen_U: Tensor) -> None:
        """Set to zero what is next to nothing of the chosen units' weights.

        A processor takes a hundred times longer for numbers below the smallest normal one, which
        weights that decay for long become.
        """
        chosen_U = torch.cat([chosen_U, chosen_U.new_zeros(1)])
        for site in self.sites:
            weight = tensors[site.tensor].detach()
            rows = chosen_U[site.unit_of].nonzero().flatten().to(weight.device)
            part = weight.index_select(site.dim, rows)
            weight.index_copy_(site.dim, rows, part.masked_fill_(part.abs() < NOTHING, 0))


def unit_sites(graph: Graph) -> dict[str, UnitSites]:
    """The sites of every free group that has a parameter, by the group's id."""
    found = {}
    for group in graph.free:
        sites = tuple(
            Site(m.tensor, m.dim, _unit_of(graph.tensors[m.tensor].dims[m.dim], group.axis))
            for m in group.members
            if graph.tensors[m.tensor].is_parameter
        )
        if sites:
            found[group.id] = UnitSites(group.size, sites)
    return found


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter under every name."""
    return {name: t for name, t in named_tensors(model) if isinstance(t, nn.Parameter)}


def shrunk_graph(graph: Graph, plan: Plan) -> Graph:
    """The groups and tensors of a graph with the sizes that a plan leaves.

    Enough to find units; everything else of it is the larger model's.
    """
    counts = plan.counts()
    tensors = {
        name: tensor._replace(dims=tuple(_shrunk(dim, counts) for dim in tensor.dims))
        for name, tensor in graph.tensors.items()
    }
    groups = tuple(replace(group, axis=_shrunk_axis(group.axis, counts)) for group in graph.groups)
    return replace(graph, tensors=tensors, groups=groups)


def _unit_of(dim: Dim, axis: Axis) -> Tensor:
    unit_of = torch.full((dim_size(dim),), axis.size)
    for rows in unit_rows(torch.arange(dim_size(dim)), 0, dim, axis):
        unit_of[rows] = torch.arange(axis.size)[:, None].expand_as(rows)
    return unit_of


def _shrunk(dim: Dim, counts: Mapping[int, int]) -> Dim:
    return tuple(
        _shrunk_axis(factor, counts)
        if isinstance(factor, Axis)
        else Concat(tuple(_shrunk(part, counts) for part in factor.parts))
        for factor in dim
    )


def _shrunk_axis(axis: Axis, counts: Mapping[int, int]) -> Axis:
    return Axis(axis.index, counts.get(axis.index, axis.size))
