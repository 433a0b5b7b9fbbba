"""In which order the units of a group go, what the layers that read them lose, and what the weights
of these layers become.

Greedy: the unit whose going costs least goes, the layers' other weights make up for it, and the
units that are left are judged again. Large groups lose a part of `PARTS` at a time.

U units, R features of one unit, F features of all units, M outputs.

Source: Kurtic et al., ZipLM: Inference-Aware Structured Pruning of Language Models, NeurIPS 2023,
algorithm 1, arXiv 2302.04089.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

PARTS = 64
"""Rounds of judging at most."""


@dataclass(frozen=True)
class Reader:
    """A matrix that reads a group: the moment of its inputs, the weights, and the features of each
    unit. size: the squared size of its outputs, which errors are relative to."""

    square_FF: Tensor
    weight_FM: Tensor
    indices_UR: Tensor
    size: float


@dataclass(frozen=True)
class Removal:
    """order_U: the units in the order in which they go. errors_U: the readers' relative squared
    errors, added up, once so many of them are gone."""

    order_U: Tensor
    errors_U: Tensor


def greedy_removal(readers: Sequence[Reader]) -> Removal:
    """Remove all units, the cheapest first.

    >>> reader = Reader(torch.eye(2), torch.tensor([[2.0], [1.0]]), torch.tensor([[0], [1]]), 5.0)
    >>> greedy_removal([reader])
    Removal(order_U=tensor([1, 0]), errors_U=tensor([0.2000, 1.0000], dtype=torch.float64))
    """
    states = [_State(reader) for reader in readers]
    units = len(readers[0].indices_UR)
    left = torch.ones(units, dtype=torch.bool)
    order, errors, lost = [], [], 0.0
    while bool(left.any()):
        cost_U = sum((state.errors() for state in states), torch.zeros(units, dtype=torch.float64))
        cost_U[~left] = torch.inf
        going = cost_U.argsort(stable=True)[: min(-(-units // PARTS), int(left.sum()))]
        before = lost
        lost += sum(state.remove_(going) for state in states)
        share = cost_U[going].cumsum(0)
        whole = float(share[-1])
        steps = share / whole if whole > 0 else torch.ones_like(share)
        order.append(going)
        errors.append(before + (lost - before) * steps)
        left[going] = False
    return Removal(torch.cat(order), torch.cat(errors))


def without(reader: Reader, units: Tensor) -> Tensor:
    """The weights once these units are gone and the others make up for them, [F, M]."""
    state = _State(reader)
    state.remove_(units)
    return state.weight_FM


class _State:
    """The inverse moment and the weights of what is left."""

    def __init__(self, reader: Reader) -> None:
        self.weight_FM = reader.weight_FM.double().clone()
        self._indices_UR, self._size = reader.indices_UR, reader.size
        factor_FF = torch.linalg.cholesky(reader.square_FF.double())
        self._inverse_FF = torch.cholesky_inverse(factor_FF)

    def errors(self) -> Tensor:
        """What each unit costs if it goes next; of those that are gone nothing is said."""
        own_URR = self._inverse_FF[self._indices_UR[:, :, None], self._indices_UR[:, None, :]]
        weight_URM = self.weight_FM[self._indices_UR]
        if own_URR.shape[1] == 1:
            return weight_URM.square().sum((1, 2)) / own_URR[:, 0, 0] / self._size
        solved_URM: Tensor = torch.linalg.solve(own_URR, weight_URM)
        return (weight_URM * solved_URM).sum((1, 2)) / self._size

    def remove_(self, units: Tensor) -> float:
        """Take units out; what that costs."""
        gone = self._indices_UR[units].flatten()
        factor = torch.linalg.cholesky(self._inverse_FF[gone[:, None], gone])
        lost_SM = self.weight_FM[gone]
        across_FS = self._inverse_FF[:, gone]
        solved_SM = torch.cholesky_solve(lost_SM, factor)
        self.weight_FM -= across_FS @ solved_SM
        self._inverse_FF -= across_FS @ torch.cholesky_solve(across_FS.T, factor)
        self.weight_FM[gone] = 0
        self._inverse_FF[gone] = 0
        self._inverse_FF[:, gone] = 0
        self._inverse_FF[gone, gone] = 1
        return float((lost_SM * solved_SM).sum()) / self._size
