"""Tensor parallelism as a `Parallel` of `finetune`: inside, around it none, DDP or FSDP2.

A mesh of data-parallel times tensor-parallel ranks: each data-parallel rank is a set of ranks that
share a model out and compute the same rows; gradients are averaged between those that hold the same
units. What is trained is a rank's part of a copy; at the end it is joined into the model given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from secateur.core.copies import copied
from secateur.core.errors import EngineError
from secateur.core.fingerprint import named_tensors
from secateur.core.lookup import find
from secateur.core.world import World
from secateur.engines.parallel.none import WHOLE
from secateur.engines.process_group import ProcessGroup
from secateur.engines.redistribute import Postal
from secateur.engines.shares import Share, Weighing
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.files import RankFiles
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import whole_tensors
from secateur.engines.training import Moment, Objective, Parallel
from secateur.graph import trace


@dataclass(slots=True)
class TensorParallel:
    """inner: the ranks that share the model. world: all ranks. outer: how those that hold the same
    units share the batches. inputs: as for `trace`, for the plan of whatever model is trained; or
    plan: that of the model."""

    inner: Postal
    world: World
    outer: Parallel = WHOLE
    inputs: Any = None
    plan: TensorParallelPlan | None = None
    _local: nn.Module | None = field(default=None, repr=False)

    def lay_out(self, model: nn.Module) -> nn.Module:
        """This rank's part of a copy, laid out by the outer kind."""
        if self.inputs is not None:
            graph = trace(model, self.inputs)
            self.plan = tensor_parallel_plan(model, graph, self.inputs, size=self.inner.size)
        self._local = parallelize_(copied(model), self._planned(), self.inner)
        return self.outer.lay_out(self._local)

    @property
    def files(self) -> RankFiles:
        """Of each rank one."""
        plan = self.plan.hash if self.plan is not None else ""
        return RankFiles(self.world, plan, plain=self.outer.files is None)

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
        places = dict(named_tensors(model))
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
    is_on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    mesh = init_device_mesh(
        "cuda" if is_on_gpu else "cpu", (world.size // size, size), mesh_dim_names=("dp", "tp")
    )
    inner, across = ProcessGroup(mesh.get_group("tp")), ProcessGroup(mesh.get_group("dp"))
    if across.size == 1:
        return TensorParallel(inner, world, inputs=inputs)
    kind = find("secateur.engines.parallel", outer, kind="parallel")
    around: Parallel = kind.make(across, sync_batch_norm=sync_batch_norm)
    return TensorParallel(inner, world, around, inputs)
