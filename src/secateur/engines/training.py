"""What a training sees of the processes that share it; one kind of sharing is a file of `parallel`.

The global batch is the same whatever the number of ranks. Every rank reads every batch, takes its
rows of it, and its loss is weighted by their share, so that the gradients of all ranks together are
those of the whole batch. Decisions (best epoch, patience, what is not finite) are the same on all
ranks, because they are made of reduced numbers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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


@dataclass(frozen=True, slots=True)
class FilePart:
    """A safetensors file of one rank. name: of no other rank. tensors: ordinary ones, the memory
    that lies here itself. header: what the file says of them."""

    name: str
    tensors: Mapping[str, Tensor]
    header: Mapping[str, str]


OFFSETS = "DCP_SHARDING_INFO"
"""In a file's header, as torch's distributed checkpoint has it: where its tensors begin."""


def header(starts: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Of a file with parts of tensors. starts: the indices at which each begins in the whole."""
    begins = {name: {"saved_offsets": list(start)} for name, start in starts.items()}
    return {"format": "pt", "DCP_VERSION": "1.0", OFFSETS: json.dumps(begins)}


@runtime_checkable
class ShardFiles(Protocol):
    """How parameters that lie on several ranks are written down."""

    def parts(self, tensors: Mapping[str, Tensor]) -> list[FilePart]:
        """The files that this rank writes of a checkpoint. Every rank asks."""

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """What all ranks wrote, by any number of them. sharded: the names of those to lay out."""

    def lay_out(self, name: str, tensor: Tensor, *, of_parameter: bool) -> Tensor:
        """What this rank holds of a tensor of a checkpoint that every rank has whole. name: its
        path there. of_parameter: whether it is a parameter's value, average or momentum."""

    def is_sharded(self, name: str, tensor: Tensor) -> bool:
        """Whether a tensor of a checkpoint is one whose rows several ranks may share."""


@runtime_checkable
class Parallel(Protocol):
    """files: None where every rank holds every parameter whole."""

    @property
    def world(self) -> World: ...

    @property
    def files(self) -> ShardFiles | None: ...

    @property
    def rows(self) -> World:
        """Of the ranks that have rows of their own, as this rank sees them: those that can take
        the batches of a validation in turns."""

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

    def clip_(self, trained: nn.Module, parameters: Sequence[Tensor], *, max_norm: float) -> float:
        """The norm of all gradients together, wherever they lie, after scaling them so that it is
        at most `max_norm`. parameters: those of `trained`, and what is trained beside it."""

    def settle_(self, trained: nn.Module) -> None:
        """Give every rank the same buffers, and each parameter its place, after an epoch."""

    def after_cut_(self) -> None:
        """The model became smaller: its parameters are others now."""

    def end_(self) -> None:
        """Leave nothing behind on the model."""


class Sharing(TypedDict, total=False):
    """How processes share a training: a keyword of the functions that train."""

    parallel: Parallel
