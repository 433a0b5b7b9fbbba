"""What the next layers lose when a unit goes: from their weights and the moments of their inputs.

A next layer is a product that sums over the group's axis. Its other inputs can take over what a
unit has in common with them; what they cannot is the unit's residual, with the covariance
``((H^-1)_uu)^-1`` where H is the second moment of all inputs.

U units, R features of one unit, M outputs, F features of all units, G groups of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import Axis, Dim, dim_size, unit_rows
from secateur.core.errors import ScoreError
from secateur.core.graph import Graph, Group, Member
from secateur.core.world import ALONE, World
from secateur.criteria.activations import dim_of
from secateur.criteria.contractions import Use
from secateur.criteria.divided import divided
from secateur.criteria.matrices import parameter_members
from secateur.criteria.moments import Moment, input_moments
from secateur.criteria.patches import weight_of
from secateur.criteria.removal import Reader

RIDGE = 1e-2
"""Added to the moments' diagonal, as a part of its mean."""
ErrorOf = Callable[[Tensor, Tensor], Tensor]


def errors_of_next_layers(
    graph: Graph,
    model: nn.Module,
    data: Iterable[Any],
    error_of: ErrorOf,
    *,
    world: World = ALONE,
) -> dict[str, Tensor]:
    """For each free group that a weight reads: the sum of the next layers' relative errors.

    world: ranks that divide the batches, then the layers. Raises: ScoreError when no weight reads
    any group, and for unsound data.
    """
    scores: dict[str, Tensor] = {}
    for read in _read_groups(graph, model, data, world):
        errors = divided(
            partial(_relative_errors, read, error_of),
            [[one.group.size] for one in read],
            costs=[one.cost for one in read],
            world=world,
            what="errors of next layers",
        )
        for one, error_U in zip(read, errors, strict=True):
            scores[one.group.id] = scores.get(one.group.id, 0) + error_U
    if not scores:
        raise _unread()
    return {group.id: scores[group.id] for group in graph.free if group.id in scores}


@dataclass(frozen=True)
class _Read:
    """A free group, and a part of a weight that sums over its axis, along a dimension `dim`."""

    group: Group
    moment: Moment
    dim: Dim

    @property
    def cost(self) -> float:
        """Of a factorisation, about."""
        groups, features, _ = self.moment.square_GFF.shape
        return float(groups) * features**3


@dataclass(frozen=True)
class GroupReader:
    """A part of a weight that reads a group: one of its groups' matrices, as a `Reader`."""

    use: Use
    number: int
    reader: Reader


def readers_of(
    graph: Graph, model: nn.Module, data: Iterable[Any], *, world: World = ALONE
) -> dict[str, list[GroupReader]]:
    """For each free group that weights read: those that do.

    Raises: ScoreError when no weight reads any group, and for unsound data.
    """
    found: dict[str, list[GroupReader]] = {}
    for one in (one for read in _read_groups(graph, model, data, world) for one in read):
        group, moment = one.group, one.moment
        indices_UR = _features(one.dim, group.axis, _taps(moment.use))
        weight_GFM = weight_of(moment.use).detach().to("cpu", torch.float64)
        for k, (square_FF, weight_FM) in enumerate(zip(moment.square_GFF, weight_GFM, strict=True)):
            size = float((weight_FM * (square_FF @ weight_FM)).sum())
            if size > 0:
                damped_FF = _damped(square_FF, moment.positions)
                reader = Reader(damped_FF, weight_FM, indices_UR, size)
                found.setdefault(group.id, []).append(GroupReader(moment.use, k, reader))
    if not found:
        raise _unread()
    return found


def _read_groups(
    graph: Graph, model: nn.Module, data: Iterable[Any], world: World
) -> Iterator[list[_Read]]:
    """Each free group with each part of a weight that sums over its axis, as many at a time as
    there is memory for."""
    parameters = dict(model.named_parameters())
    readers: dict[Member, list[Group]] = {}
    for group in graph.free:
        for member in parameter_members(graph, group):
            readers.setdefault(member, []).append(group)

    def read(use: Use) -> Member | None:
        dim = _read_dim(use, parameters[use.name])
        member = None if dim is None else Member(use.name, dim)
        return member if member in readers else None

    for moments in input_moments(model, data, lambda use: read(use) is not None, world=world):
        found = []
        for moment in moments:
            place = read(moment.use)
            assert place is not None
            dim = graph.tensors[place.tensor].dims[place.dim]
            found += [_Read(group, moment, dim) for group in readers[place]]
        yield found


def _unread() -> ScoreError:
    return ScoreError(
        "no group of this model that may lose units is read by a weight, so no next layer can "
        "tell what a unit is worth; use a criterion such as 'l2'"
    )


def _read_dim(use: Use, parameter: Tensor) -> int | None:
    """The parameter's dimension along which a use reads its input features."""
    return dim_of(use.weight, 0, parameter) if use.window is None else 1


def _relative_errors(all_read: Sequence[_Read], error_of: ErrorOf, k: int) -> Tensor:
    """The squared error of one layer's outputs when each unit goes, over their squared size."""
    moment, dim, axis = all_read[k].moment, all_read[k].dim, all_read[k].group.axis
    weight_GFM = weight_of(moment.use).detach().to("cpu", torch.float64)
    indices_UR = _features(dim, axis, _taps(moment.use))
    total_U = torch.zeros(axis.size, dtype=torch.float64)
    size = 0.0
    for square_FF, weight_FM in zip(moment.square_GFF, weight_GFM, strict=True):
        residual_URR = _residuals(square_FF, indices_UR, moment.positions)
        total_U += error_of(weight_FM[indices_UR], residual_URR)
        size += float((weight_FM * (square_FF @ weight_FM)).sum())
    return total_U / size if size > 0 else total_U


def _taps(use: Use) -> int:
    return use.weight[0, 0].numel() if use.window is not None else 1


def _features(dim: Dim, axis: Axis, taps: int) -> Tensor:
    """The features of each unit, [units, features of one]."""
    channels = torch.arange(dim_size(dim))
    own_UC = torch.cat(list(unit_rows(channels, 0, dim, axis)), dim=1)
    return (own_UC[:, :, None] * taps + torch.arange(taps)).flatten(1)


def _residuals(square_FF: Tensor, indices_UR: Tensor, positions: int) -> Tensor:
    """The moment of what of each unit's features the others cannot take over."""
    damped_FF = _damped(square_FF, positions)
    inverse_FF = torch.cholesky_inverse(torch.linalg.cholesky(damped_FF))
    own_URR = inverse_FF[indices_UR[:, :, None], indices_UR[:, None, :]]
    residual_URR: Tensor = torch.linalg.inv(own_URR)
    return residual_URR


def _damped(square_FF: Tensor, positions: int) -> Tensor:
    """A moment that can be inverted.

    Fewer positions than features would let the others take over everything, so what features have
    in common counts the less the fewer positions there were.
    """
    own_F = square_FF.diagonal()
    trusted = positions / (positions + len(own_F))
    ridge = RIDGE * float(own_F.mean()) or 1.0
    return trusted * square_FF + torch.diag((1 - trusted) * own_F + ridge)
