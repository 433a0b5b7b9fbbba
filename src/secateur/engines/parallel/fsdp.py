"""`fsdp`: every rank holds a part of every parameter, gradient and optimizer state.

Torch's FSDP2: the blocks of the model are gathered one after another while they compute, and let go
again. What is trained is a copy that the ranks hold together; at the end its weights are written
into the model that was given, which every rank has whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.utils import parametrize

from secateur.core.copies import copied
from secateur.core.fingerprint import named_modules
from secateur.core.world import World
from secateur.engines.batch_norm import has_batch_norm
from secateur.engines.by_rows import average_statistics_, computing_rows, summed
from secateur.engines.channels_last import make_contiguous_
from secateur.engines.process_group import ProcessGroup
from secateur.engines.shard_files import DcpFiles
from secateur.engines.shares import Share, Weighing, share_of
from secateur.engines.training import Moment, Objective, Parallel

SMALL = 2**18
"""Blocks with fewer parameters (a megabyte of float32) are gathered with the rest of the model: a
message of their own would cost more than it saves."""


@dataclass(slots=True)
class Fsdp:
    """See the module. sync_batch_norm: as in `ddp`."""

    world: ProcessGroup
    files: DcpFiles
    sync_batch_norm: bool = True
    _norms: bool = False
    _given: nn.Module | None = field(default=None, repr=False)
    _trained: nn.Module | None = field(default=None, repr=False)

    @property
    def rows(self) -> World:
        """All ranks."""
        return self.world

    def lay_out(self, model: nn.Module) -> nn.Module:
        """A copy whose parameters the ranks hold together."""
        self._norms, self._given = has_batch_norm(model), model
        self._trained = self._sharded(copied(model))
        return self._trained

    def replicate(self, trained: nn.Module) -> nn.Module:
        """Another one, with the same weights."""
        assert self._given is not None
        copy = self._sharded(copied(self._given))
        with torch.no_grad():
            for own, other in zip(_tensors(copy), _tensors(trained), strict=True):
                own.copy_(other)
        return copy

    def bring_back_(self, model: nn.Module, trained: nn.Module) -> None:
        """Gather one parameter after another into the model that was given."""
        with torch.no_grad(), self.world.meeting("the trained weights"):
            for whole, part in zip(_tensors(model), _tensors(trained), strict=True):
                whole.copy_(part.full_tensor() if isinstance(part, DTensor) else part)
        self._given = self._trained = None

    def share(self, batch: Any, weighing: Weighing) -> Share:
        """This rank's rows."""
        return share_of(batch, rank=self.world.rank, size=self.world.size, weighing=weighing)

    @contextmanager
    def computing(self, objective: Objective, share: Share, moment: Moment) -> Iterator[Objective]:
        """The objective; gradients are sent with the last batch of a step only."""
        synced = self._norms and self.sync_batch_norm
        with computing_rows(self.world, share, moment, sync_batch_norm=synced):
            cast(FSDPModule, self._trained).set_requires_gradient_sync(moment.last)
            yield objective

    def after_backward_(
        self, trained: nn.Module, objective: Objective, learnt: Iterable[nn.Parameter]
    ) -> None:
        """The gradients are averaged, each part where it lies."""

    def total(self, loss: float, *, step: int) -> float:
        """The sum over the ranks, the same bits on each."""
        return summed(loss, self.world, step=step)

    def clip_(self, trained: nn.Module, parameters: Sequence[Tensor], *, max_norm: float) -> float:
        """By the norm of all parts together."""
        norm = nn.utils.clip_grad_norm_(parameters, max_norm)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def settle_(self, trained: nn.Module) -> None:
        """Let go what a forward without a backward has gathered; average buffers that differ."""
        for module in trained.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
        if self._norms and not self.sync_batch_norm:
            average_statistics_(trained, self.world)

    def after_cut_(self) -> None:
        """Nothing is cut while it is sharded."""

    def end_(self) -> None:
        """The model that was given has no hooks."""

    def _sharded(self, model: nn.Module) -> nn.Module:
        make_contiguous_(model)
        for block in blocks_of(model):
            fully_shard(block, mesh=self.files.mesh)
        fully_shard(model, mesh=self.files.mesh)
        return model


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """The entries of the outermost lists of a model: its blocks, as far as they are worth it and
    share no parameter with another.

    >>> blocks_of(nn.Sequential(nn.Linear(600, 600), nn.ReLU()))
    [Linear(in_features=600, out_features=600, bias=True)]
    """
    blocks, inside = list[nn.Module](), set[nn.Module]()
    for _, module in named_modules(model):
        if module in inside or not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        if not isinstance(module, parametrize.ParametrizationList):
            entries = list(module.children())
            inside.update(below for entry in entries for below in entry.modules())
            blocks += entries
    holders: dict[nn.Parameter, set[nn.Module]] = {}
    for _, module in named_modules(model):
        for parameter in module.parameters(recurse=False):
            holders.setdefault(parameter, set()).add(module)
    return [b for b in dict.fromkeys(blocks) if _size(b) >= SMALL and _owns(b, holders)]


def _owns(block: nn.Module, holders: dict[nn.Parameter, set[nn.Module]]) -> bool:
    """Whether no module outside a block holds one of its parameters."""
    inside = set(block.modules())
    return all(holders[parameter] <= inside for parameter in block.parameters())


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _tensors(model: nn.Module) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def make(
    world: World,
    *,
    model: nn.Module | None = None,
    example_inputs: Any = None,
    sync_batch_norm: bool = True,
) -> Parallel:
    """The kind for a world of several processes, on the GPU of each where it computes on one."""
    assert isinstance(world, ProcessGroup)
    is_on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    device = "cuda" if is_on_gpu else "cpu"
    if world.group is None:
        mesh = init_device_mesh(device, (world.size,))
    else:
        mesh = DeviceMesh.from_group(world.group, device)
    return Fsdp(world, DcpFiles(world, mesh), sync_batch_norm)
