"""Tensor parallelism as a `Parallel` of `finetune`: inside, around it none, DDP or FSDP2.

A mesh of data-parallel times tensor-parallel ranks: each data-parallel rank is a set of ranks that
share a model out and compute the same rows; gradients are averaged between those that hold the same
units. What is trained is a rank's part of a copy; at the end it is joined into the model given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.errors import EngineError
from secateur.core.fingerprint import named_tensors
from secateur.core.world import World
from secateur.engines.parallel.none import WHOLE
from secateur.engines.redistribute import Postal
from secateur.engines.shares import Share, Weighing
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import whole_tensors
from secateur.engines.training import Moment, Objective, Parallel


@dataclass(slots=True)
class TensorParallel:
    """plan: how the model that is trained is shared out. inner: the ranks that share it. outer: how
    those that hold the same units share the batches. world: all ranks."""

    plan: TensorParallelPlan
    inner: Postal
    world: World
    outer: Parallel = WHOLE
    files: _NoFiles = field(default_factory=lambda: _NoFiles())
    _local: nn.Module | None = field(default=None, repr=False)

    def lay_out(self, model: nn.Module) -> nn.Module:
        """This rank's part of a copy, laid out by the outer kind."""
        self._local = parallelize_(copied(model), self.plan, self.inner)
        return self.outer.lay_out(self._local)

    def replicate(self, trained: nn.Module) -> nn.Module:
        """A copy, which meets the same ranks."""
        return self.outer.replicate(trained)

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """Join one tensor after another into the model that was given."""
        assert self._local is not None
        self.outer.bring_back_(self._local, trained)
        places = dict(named_tensors(model))
        with torch.no_grad():
            for name, tensor in whole_tensors(self._local, self.plan, self.inner):
                places[name].copy_(tensor)

    def share(self, batch: Any, weighing: Weighing) -> Share:
        """The rows of this rank and of those it shares the model with."""
        return self.outer.share(batch, weighing)

    @contextmanager
    def computing(self, objective: Objective, share: Share, moment: Moment) -> Iterator[Objective]:
        """As the outer kind."""
        with self.outer.computing(objective, share, moment) as computed:
            yield computed

    def after_backward_(
        self, trained: nn.Module, objective: Objective, learnt: Iterable[nn.Parameter]
    ) -> None:
        """As the outer kind: within, every gradient is already what it is in the whole model."""
        self.outer.after_backward_(trained, objective, learnt)

    def total(self, loss: float, *, step: int) -> float:
        """The sum over the rows; ranks that share the model out have the same loss."""
        return self.outer.total(loss, step=step)

    def number(self, value: Tensor) -> NoReturn:
        """Raises: EngineError: a rank's norm is that of its part alone."""
        raise EngineError(
            "gradients that tensor parallelism shares out cannot be clipped by finetune, which "
            "takes the norm of one rank's part; set clip_norm to None"
        )

    def settle_(self, trained: nn.Module) -> None:
        """As the outer kind."""
        self.outer.settle_(trained)

    def after_cut_(self) -> None:
        """As the outer kind."""
        self.outer.after_cut_()

    def end_(self) -> None:
        """As the outer kind."""
        self.outer.end_()


@dataclass(frozen=True, slots=True)
class _NoFiles:
    """Checkpoints of what is shared out are not written; `whole_tensors` gives what to save."""

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Raises: EngineError."""
        self._refuse()

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """Raises: EngineError."""
        self._refuse()

    def lay_out(self, tensor: Tensor) -> Tensor:
        """Raises: EngineError."""
        self._refuse()

    def is_sharded(self, tensor: Tensor) -> bool:
        """Raises: EngineError."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise EngineError(
            "a training under tensor parallelism writes no checkpoints: give no checkpoint_dir, "
            "and save the model that finetune leaves"
        )
