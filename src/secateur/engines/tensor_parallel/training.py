"""Tensor parallelism as a `Parallel` of `finetune`: inside, around it none, DDP or FSDP2.

A mesh of data-parallel times tensor-parallel ranks: each data-parallel rank is a set of ranks that
share a model out and compute the same rows; gradients are averaged between those that hold the same
units. What is trained is a rank's part of a copy; at the end it is joined into the model given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.errors import EngineError
from secateur.core.lookup import find
from secateur.core.world import ALONE, World
from secateur.engines.parallel.none import WHOLE
from secateur.engines.process_group import ProcessGroup
from secateur.engines.redistribute import Postal
from secateur.engines.shares import Share, Weighing
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.clipping import clip_gradients_
from secateur.engines.tensor_parallel.files import PartFiles
from secateur.engines.tensor_parallel.layout import Layout
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.masked import put_masks_, take_masks_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import whole_tensors
from secateur.engines.training import Moment, Objective, Parallel
from secateur.graph import trace
from secateur.masks.dense import dense_tensors


@dataclass(slots=True)
class TensorParallel:
    """inner: the ranks that share the model. across: those that hold the same units. world: all.
    outer: how those across share the batches. inputs: as for `trace`, for the plan of whatever
    model is trained; or plan: that of the model, without masks."""

    inner: Postal
    across: World
    world: World
    outer: Parallel = WHOLE
    inputs: Any = None
    plan: TensorParallelPlan | None = None
    _local: nn.Module | None = field(default=None, repr=False)
    _layout: Layout | None = field(default=None, repr=False)

    @property
    def rows(self) -> World:
        """As the outer kind."""
        return self.outer.rows

    def lay_out(self, model: nn.Module) -> nn.Module:
        """This rank's part of a copy, with its part of the masks, laid out by the outer kind."""
        local = copied(model)
        masks = take_masks_(local)
        if self.inputs is not None:
            graph = trace(local, self.inputs)
            self.plan = tensor_parallel_plan(local, graph, self.inputs, size=self.inner.size)
        plan = self._planned()
        self._local = parallelize_(local, plan, self.inner)
        put_masks_(local, masks, plan, rank=self.inner.rank)
        self._layout = Layout.of_model(local, plan)
        return self.outer.lay_out(local)

    @property
    def files(self) -> PartFiles:
        """Of each rank some, with its parts of whole tensors."""
        return PartFiles(self.world, self.inner, self.across, self._layout, self.outer.files)

    def _planned(self) -> TensorParallelPlan:
        if self.plan is None:
            raise EngineError(
                "tensor parallelism needs the model's inputs: TensorParallel(..., inputs=x), with "
                "x as for trace"
            )
        return self.plan

    def replicate(self, trained: nn.Module) -> nn.Module:
        """A copy, which meets the same ranks."""
        return self.outer.replicate(trained)

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """Join one tensor after another into the model that was given."""
        assert self._local is not None
        self.outer.bring_back_(self._local, trained)
        places = dense_tensors(model)
        with torch.no_grad():
            for name, tensor in whole_tensors(self._local, self._planned(), self.inner):
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

    def clip_(self, trained: nn.Module, parameters: Sequence[Tensor], *, max_norm: float) -> float:
        """By the norm over the whole model."""
        return clip_gradients_(trained, self._planned(), self.inner, max_norm=max_norm)

    def settle_(self, trained: nn.Module) -> None:
        """As the outer kind."""
        self.outer.settle_(trained)

    def after_cut_(self) -> None:
        """As the outer kind."""
        self.outer.after_cut_()

    def end_(self) -> None:
        """As the outer kind."""
        self.outer.end_()


def share_out(
    world: ProcessGroup,
    *,
    inputs: Any,
    size: int,
    outer: str = "ddp",
    sync_batch_norm: bool = True,
) -> TensorParallel:
    """The kind for a world: `size` ranks share the model out, and the sets of so many ranks share
    the batches as `outer`, a file of `engines.parallel`, says. inputs: as for `trace`.

    Neighbours share a model. Raises: EngineError when `size` does not divide the world.
    """
    if size < 1 or world.size % size:
        raise EngineError(
            f"{world.size} ranks cannot be divided into sets of {size} that share a model out; "
            f"start a multiple of {size} ranks"
        )
    if size == world.size:
        return TensorParallel(world, ALONE, world, inputs=inputs)
    sets = [list(range(first, first + size)) for first in range(0, world.size, size)]
    inner, across = _among(sets, world), _among(list(zip(*sets, strict=True)), world)
    kind = find("secateur.engines.parallel", outer, kind="parallel")
    around: Parallel = kind.make(across, sync_batch_norm=sync_batch_norm)
    return TensorParallel(inner, across, world, around, inputs)


def _among(sets: Sequence[Sequence[int]], world: ProcessGroup) -> ProcessGroup:
    """The world of that set of ranks of which this rank is one."""
    watch = world.watch
    limit = None if watch is None else timedelta(seconds=watch.patience_s)
    enumerated: Any = dist.new_subgroups_by_enumeration
    group, _ = enumerated([list(one) for one in sets], timeout=limit)
    return ProcessGroup(group, watch=watch)
