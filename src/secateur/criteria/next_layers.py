"""What the next layers lose when a unit goes: from their weights and the moments of their inputs.

A next layer is a product that sums over the group's axis. Its other inputs can take over what a
unit has in common with them; what they cannot is the unit's residual, with the covariance
``((H^-1)_uu)^-1`` where H is the second moment of all inputs.

U units, R features of one unit, M outputs, F features of all units, G groups of a convolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.dims import Axis, Dim, dim_size, unit_rows
from secateur.core.errors import ScoreError
from secateur.core.graph import Graph, Group, Member
from secateur.criteria.activations import dim_of
from secateur.criteria.contractions import Use
from secateur.criteria.matrices import parameter_members
from secateur.criteria.moments import Moment, input_moments
from secateur.criteria.patches import weight_of

RIDGE = 1e-2
"""Added to the moments' diagonal, as a part of its mean."""
ErrorOf = Callable[[Tensor, Tensor], Tensor]


def errors_of_next_layers(
    graph: Graph, model: nn.Module, data: Iterable[Any], error_of: ErrorOf
) -> dict[str, Tensor]:
    """For each free group that a weight reads: the sum of the next layers' relative errors.

    Raises: ScoreError when no weight reads any group, and for unsound data.
    """
    parameters = dict(model.named_parameters())
    readers: dict[Member, list[Group]] = {}
    for group in graph.free:
        for member in parameter_members(graph, group):
            readers.setdefault(member, []).append(group)
    scores: dict[str, Tensor] = {}
    for moments in input_moments(model, data, {member.tensor for member in readers}):
        for (name, *_), moment in moments.items():
            dim = _read_dim(moment.use, parameters[name])
            for group in [] if dim is None else readers.get(Member(name, dim), []):
                assert dim is not None
                dims = graph.tensors[name].dims[dim]
                error_U = _relative_errors(moment, dims, group.axis, error_of)
                scores[group.id] = scores.get(group.id, 0) + error_U
    if not scores:
        raise ScoreError(
            "no group of this model that may lose units is read by a weight, so no next layer can "
            "tell what a unit is worth; use a criterion such as 'l2'"
        )
    return {group.id: scores[group.id] for group in graph.free if group.id in scores}


def _read_dim(use: Use, parameter: Tensor) -> int | None:
    """The parameter's dimension along which a use reads its input features."""
    return dim_of(use.weight, 0, parameter) if use.window is None else 1


def _relative_errors(moment: Moment, dim: Dim, axis: Axis, error_of: ErrorOf) -> Tensor:
    """The squared error of one layer's outputs when each unit goes, over their squared size."""
    weight_GFM = weight_of(moment.use).detach().to("cpu", torch.float64)
    taps = moment.use.weight[0, 0].numel() if moment.use.window is not None else 1
    indices_UR = _features(dim, axis, taps)
    total_U = torch.zeros(axis.size, dtype=torch.float64)
    size = 0.0
    for square_FF, weight_FM in zip(moment.square_GFF, weight_GFM, strict=True):
        residual_URR = _residuals(square_FF, indices_UR, moment.positions)
        total_U += error_of(weight_FM[indices_UR], residual_URR)
        size += float((weight_FM * (square_FF @ weight_FM)).sum())
    return total_U / size if size > 0 else total_U


def _features(dim: Dim, axis: Axis, taps: int) -> Tensor:
    """The features of each unit, [units, features of one]."""
    channels = torch.arange(dim_size(dim))
    own_UC = torch.cat(list(unit_rows(channels, 0, dim, axis)), dim=1)
    return (own_UC[:, :, None] * taps + torch.arange(taps)).flatten(1)


def _residuals(square_FF: Tensor, indices_UR: Tensor, positions: int) -> Tensor:
    """The moment of what of each unit's features the others cannot take over.

    Fewer positions than features would let the others take over everything, so what features have
    in common counts the less the fewer positions there were.
    """
    own_F = square_FF.diagonal()
    trusted = positions / (positions + len(own_F))
    ridge = RIDGE * float(own_F.mean()) or 1.0
    damped = trusted * square_FF + torch.diag((1 - trusted) * own_F + ridge)
    inverse_FF = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    own_URR = inverse_FF[indices_UR[:, :, None], indices_UR[:, None, :]]
    residual_URR: Tensor = torch.linalg.inv(own_URR)
    return residual_URR
