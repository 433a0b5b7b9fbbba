"""Processes that decide together, as what scores, selects and trains sees of them.

`ALONE` is the world of one process, in which nothing is sent. Engines make larger ones; nothing
outside `engines/` knows how. Every rank calls the same methods in the same order. `what` says what
is agreed on, in a few words: it is what a time-out reports of a rank that others wait for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict, TypeVar, runtime_checkable

from torch import Tensor

T = TypeVar("T")


@runtime_checkable
class World(Protocol):
    """rank: of this process, from 0. size: how many there are."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        """Every tensor becomes its sum over the ranks, in place, the same bits on each of them."""

    def gather(self, value: T, *, what: str) -> list[T]:
        """A small plain value (what JSON can say) of each rank, in the order of the ranks."""

    def first(self, value: T, *, what: str) -> T:
        """The small plain value that rank 0 has."""

    def wait(self, *, what: str) -> None:
        """Go on when every rank has come here."""


@dataclass(frozen=True, slots=True)
class Alone:
    """The world of one process.

    >>> Alone().gather("a", what="letters")
    ['a']
    """

    rank: int = 0
    size: int = 1

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        """Nothing is added."""

    def gather(self, value: T, *, what: str) -> list[T]:
        """The value, alone."""
        return [value]

    def first(self, value: T, *, what: str) -> T:
        """The value."""
        return value

    def wait(self, *, what: str) -> None:
        """Nobody is waited for."""


ALONE: World = Alone()


class Processes(TypedDict, total=False):
    """Which processes share some work: a keyword of functions that several ranks may call."""

    world: World
