"""`ddp`: every rank has the whole model and its part of every batch; gradients are averaged.

Torch's DistributedDataParallel sends them while the backward still runs. It is put around the
objective, so that the model itself, its hooks and its parameters stay what they are. The first
step, and the first after a cut, averages by itself: it shows which parameters have no gradient.
The loss travels with the gradients, as that of a parameter which nothing reads.
"""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from secateur.core.copies import copied
from secateur.core.world import World
from secateur.engines.batch_norm import has_batch_norm
from secateur.engines.by_rows import average_statistics_, computing_rows, summed
from secateur.engines.gradients import average_
from secateur.engines.kept_gradients import send_kept_
from secateur.engines.process_group import ProcessGroup
from secateur.engines.shares import Share, Weighing, share_of
from secateur.engines.training import Moment, Objective, Parallel


@dataclass(slots=True)
class Ddp:
    """See the module. sync_batch_norm: statistics of batch norm are those of the whole batch; if
    not, they are each rank's own, and the averages over the ranks are kept."""

    world: ProcessGroup
    sync_batch_norm: bool = True
    files: None = None
    _norms: bool = False
    _sent: bool = False
    _loss: DistributedDataParallel | None = field(default=None, repr=False)
    _told: nn.Parameter | None = field(default=None, repr=False)

    @property
    def rows(self) -> World:
        """All ranks."""
        return self.world

    def lay_out(self, model: nn.Module) -> nn.Module:
        """The model, with the weights that it has on rank 0."""
        self._norms = has_batch_norm(model)
        with torch.no_grad(), self.world.meeting("the weights to start from"):
            for tensor in (*model.parameters(), *model.buffers()):
                dense = tensor.contiguous()
                dist.broadcast(dense, group_src=0, group=self.world.group)
                if dense is not tensor:
                    tensor.copy_(dense)
        self._told = _told_beside(model)
        return model

    def replicate(self, trained: nn.Module) -> nn.Module:
        """A copy."""
        return copied(trained)

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """It is the same."""

    def share(self, batch: Any, weighing: Weighing) -> Share:
        """This rank's rows."""
        return share_of(batch, rank=self.world.rank, size=self.world.size, weighing=weighing)

    @contextmanager
    def computing(self, objective: Objective, share: Share, moment: Moment) -> Iterator[Objective]:
        """The objective, through DistributedDataParallel where that stands already."""
        synced = self._norms and self.sync_batch_norm
        with computing_rows(self.world, share, moment, sync_batch_norm=synced):
            loss = self._loss
            self._sent = loss is not None
            told = self._told
            assert told is not None, "computing before lay_out"
            if moment.part == 0:
                told.grad = None
            if loss is None:
                yield lambda model, batch: _tell(objective(model, batch), told, share.weight)
                return
            with nullcontext() if moment.last else loss.no_sync():
                yield lambda model, batch: loss(batch, share.weight)

    def after_backward_(
        self, trained: nn.Module, objective: Objective, learnt: Iterable[nn.Parameter]
    ) -> None:
        """Average what was not averaged on the way, and let it be from the next step on."""
        if self._sent:
            return
        learnt = list(learnt)
        assert self._told is not None, "gradients before lay_out"
        # the loss goes along as in later steps: a run that goes on logs the very same numbers
        trained_here = (*trained.parameters(), *learnt, self._told)
        uneven = average_(trained_here, self.world, what="the gradients of a first step")
        with self.world.meeting("the start of the averaging of gradients"), catch_warnings():
            # torch 2.13 has another name for it, which 2.11 does not know
            filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            self._loss = DistributedDataParallel(
                _Loss(trained, objective, learnt, self._told),
                process_group=self.world.group,
                broadcast_buffers=False,
                init_sync=False,
                find_unused_parameters=uneven,
                gradient_as_bucket_view=True,
            )
            send_kept_(self._loss, trained)

    def total(self, loss: float, *, step: int) -> float:
        """The sum over the ranks, the same bits on each."""
        told = None if self._told is None else self._told.grad
        if told is None:
            return summed(loss, self.world, step=step)
        return float(told) * self.world.size

    def clip_(self, trained: nn.Module, parameters: Sequence[Tensor], *, max_norm: float) -> float:
        """Each rank by itself: gradients are the same on all."""
        return float(nn.utils.clip_grad_norm_(parameters, max_norm))

    def settle_(self, trained: nn.Module) -> None:
        """Average the buffers that differ, those of batch norm."""
        if self._norms and not self.sync_batch_norm:
            average_statistics_(trained, self.world)

    def after_cut_(self) -> None:
        """The next step finds out anew what has gradients."""
        self._loss = None
        gc.collect()  # its hooks on the parameters go with it, and it is held in circles

    def end_(self) -> None:
        """Take the hooks off the parameters."""
        self.after_cut_()


class _Loss(nn.Module):
    """An objective as a module that holds all that is trained."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        learnt: Iterable[nn.Parameter],
        told: nn.Parameter,
    ) -> None:
        super().__init__()
        self.model, self._objective = model, (objective,)  # a module in a tuple is not registered
        self.learnt = nn.ParameterList(learnt)
        self.told = told

    def forward(self, batch: Any, weight: float) -> Tensor:
        """The loss of a batch; its part of the whole loss becomes the gradient of `told`."""
        return _tell(self._objective[0](self.model, batch), self.told, weight)


def _told_beside(model: nn.Module) -> nn.Parameter:
    """A number whose gradient becomes the loss, so that it is averaged along with the others."""
    parameters = list(model.parameters())
    first = next((p for p in parameters if p.requires_grad), parameters[0])
    exact = torch.promote_types(first.dtype, torch.float32)
    return nn.Parameter(torch.zeros((), dtype=exact, device=first.device))


def _tell(loss: Tensor, told: Tensor, weight: float) -> Tensor:
    """The loss; when it is differentiated, its weighted value becomes the gradient of `told`."""
    same: Tensor = _Told.apply(loss, told, weight)  # type: ignore[no-untyped-call]
    return same


class _Told(torch.autograd.Function):
    """A loss as it is; its value, weighted, becomes the gradient of a second number."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, told: Tensor, weight: float) -> Tensor:
        ctx.value = weight * loss.detach().to(told.dtype).view(())
        return loss.view_as(loss)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0], ctx.value, None


def make(
    world: World,
    *,
    model: nn.Module | None = None,
    example_inputs: Any = None,
    sync_batch_norm: bool = True,
) -> Parallel:
    """The kind for a world of several processes."""
    assert isinstance(world, ProcessGroup)
    return Ddp(world, sync_batch_norm)
