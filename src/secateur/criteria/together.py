"""Ranks that work on one thing: none is left waiting when another cannot go on.

Inside a `together` block every meeting of the ranks begins with how each of them fares. One that
raised says so at the next meeting, whichever that is, and all raise the same error: that of the
lowest rank that failed by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from secateur.core import errors
from secateur.core.errors import EngineError, SecateurError
from secateur.core.fingerprint import named_tensors
from secateur.core.world import World

T = TypeVar("T")


class Together:
    """A world in which a failure of one rank is an error on all: what `together` gives."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.over = False

    @property
    def rank(self) -> int:
        """Of the world below."""
        return self._world.rank

    @property
    def size(self) -> int:
        """Of the world below."""
        return self._world.size

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        """See `World`."""
        self.wait(what=what)
        with self._ending():
            self._world.sum_(tensors, what=what)

    def gather(self, value: T, *, what: str) -> list[T]:
        """See `World`."""
        return [one for _, one in self._meet([None, value], what)]

    def first(self, value: T, *, what: str) -> T:
        """See `World`."""
        return self.gather(value if self.rank == 0 else None, what=what)[0]  # type: ignore[return-value]

    def wait(self, *, what: str) -> None:
        """See `World`."""
        self.gather(None, what=what)

    def fail(self, error: Exception, *, what: str) -> None:
        """Tell the others. Raises: the error of the lowest rank that failed."""
        self._meet(
            [[type(error).__name__, str(error)], None], f"{what}, where a rank failed", error
        )

    def _meet(self, own: list[Any], what: str, error: Exception | None = None) -> list[list[Any]]:
        with self._ending():
            found = self._world.gather(own, what=what)
            for rank, (failure, _) in enumerate(found):
                if failure is not None:
                    if error is not None and rank == self.rank:
                        raise error
                    raise self._error_of(rank, *failure) from error
        return found

    def _error_of(self, rank: int, kind: str, text: str) -> Exception:
        if kind == ValueError.__name__:
            return ValueError(text)
        known = vars(errors).get(kind)
        if isinstance(known, type) and issubclass(known, SecateurError):
            return known(text)
        return EngineError(
            f"rank {rank} of {self.size} failed, so all stop: {kind}: {text}. The traceback is "
            f"among rank {rank}'s messages"
        )

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """An error inside is known to all ranks, or nobody can be told any more."""
        try:
            yield
        except Exception:
            self.over = True
            raise


@contextmanager
def together(world: World, *, what: str) -> Iterator[World]:
    """The world for a block that all ranks go through, and come out of together.

    what: the ranks do in it, in a few words. Raises: on every rank the error of the lowest rank
    that failed; EngineError where that is none of secateur's.
    """
    if world.size == 1 or isinstance(world, Together):
        yield world
        return
    guarded = Together(world)
    try:
        yield guarded
        guarded.wait(what=f"the end of {what}")
    except Exception as error:
        if guarded.over:
            raise
        guarded.fail(error, what=what)


def check_alike(world: World, model: nn.Module, about: Mapping[str, Any]) -> None:
    """Raises: EngineError, on every rank, when two ranks do not hold the same model, or differ in
    their threads or in something of `about`: they would not come to the same numbers."""
    if world.size == 1:
        return
    own: dict[str, Any] = {"the number of threads": torch.get_num_threads(), **about}
    names, sums = _digest(model)
    mine: list[Any] = [own, sums]
    found = world.gather(mine, what="whether ranks do the same")
    first, expected = found[0]
    for rank, (other, digest) in enumerate(found):
        for name, value in first.items():
            if other.get(name) != value:
                raise EngineError(
                    f"{name} is {value} on rank 0 and {other.get(name)} on rank {rank}; call with "
                    "the same arguments and the same OMP_NUM_THREADS on every rank"
                )
        if digest != expected:
            pairs = zip(names, digest, expected, strict=False)
            name = next((name for name, a, b in pairs if a != b), "the list of tensors")
            raise EngineError(
                f"the models differ: {name} has other values on rank {rank} than on rank 0; load "
                "the same weights on every rank, or call torch.manual_seed before building them"
            )


def _digest(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names of the tensors that each rank holds whole, and their sums, as text: NaN equals NaN."""
    plain = {
        name: tensor.detach()
        for name, tensor in named_tensors(model)
        if type(tensor) in (Tensor, nn.Parameter) and not tensor.is_meta
    }
    return list(plain), [str(_sum(tensor)) for tensor in plain.values()]


def _sum(tensor: Tensor) -> Any:
    return tensor.sum(dtype=torch.float64 if tensor.is_floating_point() else None).item()
