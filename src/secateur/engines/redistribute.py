"""Rows of a tensor that several ranks share, moved to other ranks: only those that must move.

Every rank knows which indices of the shared dimension each rank holds and which each wants, so a
`Route` is worked out once without sending anything, and serves every tensor with that dimension: a
weight, its gradient, the moments of its optimizer. What a rank holds already stays where it is; the
rest comes from the first rank that has it. A rank never holds more than what it has, what it wants
and what it sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from secateur.core.world import World


class Postal(World, Protocol):
    """A world whose ranks can also send tensors to each other."""

    def swap(
        self, sent: Sequence[Tensor | None], came: Sequence[Tensor | None], *, what: str
    ) -> None:
        """Send ``sent[r]`` to each rank r and fill ``came[r]`` with what r sent, None for nothing.
        Both sides agree on shapes. Every rank calls it."""


@dataclass(frozen=True, slots=True)
class Route:
    """Indices of one rank, along the dimension that is shared.

    size: wanted here. stays: where what stays lies in the old part, and in the new. sends: for each
    rank, what of the old part goes there. comes: for each rank, where in the new part what it sends
    belongs.
    """

    size: int
    stays: tuple[Tensor, Tensor]
    sends: tuple[Tensor, ...]
    comes: tuple[Tensor, ...]

    @property
    def moves(self) -> int:
        """Rows that this rank sends or receives."""
        return sum(len(index) for index in (*self.sends, *self.comes))


def route(held: Sequence[Tensor], wanted: Sequence[Tensor], rank: int) -> Route:
    """The way from what each rank holds to what each wants: global indices, ascending.

    Raises: ValueError when nobody holds what somebody wants.

    >>> ranges = [torch.arange(0, 4), torch.arange(4, 8)]
    >>> there = route(ranges, [torch.tensor([0, 1, 2]), torch.tensor([3, 6, 7])], 0)
    >>> there.size, there.sends[1].tolist(), there.moves
    (3, [3], 1)
    """
    lacking = [_without(want, have) for have, want in zip(held, wanted, strict=True)]
    sends, comes = [], []
    for other in range(len(held)):
        going = _from(held, lacking[other], rank) if other != rank else held[rank][:0]
        coming = _from(held, lacking[rank], other) if other != rank else held[rank][:0]
        sends.append(torch.searchsorted(held[rank], going))
        comes.append(torch.searchsorted(wanted[rank], coming))
    if sum(map(len, comes)) != len(lacking[rank]):
        raise ValueError("an index is wanted that no rank holds")
    kept = wanted[rank][torch.isin(wanted[rank], held[rank])]
    stays = torch.searchsorted(held[rank], kept), torch.searchsorted(wanted[rank], kept)
    return Route(len(wanted[rank]), stays, tuple(sends), tuple(comes))


def move_rows(local: Tensor, way: Route, world: Postal, *, what: str, dim: int = 0) -> Tensor:
    """This rank's new part of a tensor, in memory of its own. Called by every rank.

    what: the tensor's name, for what is said of a rank that does not come.
    """
    shape = [way.size if k == dim else size for k, size in enumerate(local.shape)]
    new = local.new_empty(shape)
    sent = [_rows(local, dim, index) for index in way.sends]
    came = [
        None if not len(index) else local.new_empty([len(index), *_others(local, dim)])
        for index in way.comes
    ]
    world.swap(sent, came, what=f"the rows of {what}")
    del sent
    if len(way.stays[0]):
        _place_(new, dim, way.stays[1], local.index_select(dim, way.stays[0].to(local.device)))
    for index, rows in zip(way.comes, came, strict=True):
        if rows is not None:
            _place_(new, dim, index, rows.movedim(0, dim))
    return new


def _rows(local: Tensor, dim: int, index: Tensor) -> Tensor | None:
    """Rows to be sent, with the dimension first."""
    if not len(index):
        return None
    return local.index_select(dim, index.to(local.device)).movedim(dim, 0).contiguous()


def _place_(new: Tensor, dim: int, index: Tensor, rows: Tensor) -> None:
    new.index_copy_(dim, index.to(new.device), rows)


def _others(local: Tensor, dim: int) -> list[int]:
    return [size for k, size in enumerate(local.shape) if k != dim]


def _without(wanted: Tensor, held: Tensor) -> Tensor:
    return wanted[~torch.isin(wanted, held)]


def _from(held: Sequence[Tensor], lacking: Tensor, rank: int) -> Tensor:
    """What of `lacking` comes from `rank`: what it holds and no rank before it does."""
    found = lacking[torch.isin(lacking, held[rank])]
    for before in held[:rank]:
        found = _without(found, before)
    return found
