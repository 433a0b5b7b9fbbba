"""What a training sees of the processes that share it; one kind of sharing is a file of `parallel`.

The global batch is the same whatever the number of ranks. Every rank reads every batch, takes its
rows of it, and its loss is weighted by their share, so that the gradients of all ranks together are
those of the whole batch. Decisions (best epoch, patience, what is not finite) are the same on all
ranks, because they are made of reduced numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypedDict, runtime_checkable

from torch import Tensor, nn

from secateur.core.world import World
from secateur.engines.shares import Share, Weighing

Objective = Callable[[nn.Module, Any], Tensor]


@dataclass(frozen=True, slots=True)
class Moment:
    """Where a training is. seed: of the training. step: from 0. part: of the batches of a step,
    from 0. last: whether the step ends with it."""

    seed: int
    step: int
    part: int
    last: bool


@runtime_checkable
class ShardFiles(Protocol):
    """How parameters that lie on several ranks are written down."""

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors, each rank those parts that it holds, into a folder that all ranks see."""

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """Inverse of `write`, by any number of ranks. sharded: the names of those to lay out."""

    def lay_out(self, tensor: Tensor) -> Tensor:
        """A tensor that every rank has whole, as one of which each has its part."""

    def is_sharded(self, tensor: Tensor) -> bool:
        """Whether a tensor is one of several ranks."""


@runtime_checkable
class Parallel(Protocol):
    """files: None where every rank holds every parameter whole."""

    @property
    def world(self) -> World: ...

    @property
    def files(self) -> ShardFiles | None: ...

    def lay_out(self, model: nn.Module) -> nn.Module:
        """The model to train, before its optimizer is made: `model` itself, or one that the ranks
        hold together."""

    def replicate(self, trained: nn.Module) -> nn.Module:
        """A copy, laid out in the same way."""

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """Write what was trained into the model that was given."""

    def share(self, batch: Any, weighing: Weighing) -> Share:
        """This rank's rows of a batch."""

    def computing(
        self, objective: Objective, share: Share, moment: Moment
    ) -> AbstractContextManager[Objective]:
        """The surroundings of forward and backward, and the objective to call there."""

    def after_backward_(
        self, trained: nn.Module, objective: Objective, learnt: Iterable[nn.Parameter]
    ) -> None:
        """See that every gradient is that of the whole batch. learnt: what is trained beside the
        model."""

    def total(self, loss: float, *, step: int) -> float:
        """The sum of a number over the ranks."""

    def number(self, value: Tensor) -> float:
        """What a norm over all parameters is, wherever they lie."""

    def settle_(self, trained: nn.Module) -> None:
        """Give every rank the same buffers, and each parameter its place, after an epoch."""

    def after_cut_(self) -> None:
        """The model became smaller: its parameters are others now."""

    def end_(self) -> None:
        """Leave nothing behind on the model."""


class Sharing(TypedDict, total=False):
    """How processes share a training: a keyword of the functions that train."""

    parallel: Parallel
