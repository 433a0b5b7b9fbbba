"""The loops that `engine.py` compares: a step as it is usually written, and a step of `finetune`.

Two networks: the CNN of `fashion.py`, with batch norms, and MiniLM's shape with random weights,
without any. Inputs are random numbers: what a step costs does not depend on them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from engine_turns import Loop
from fashion import fashion_net
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrize

from secateur.core.world import World
from secateur.engines.batch_norm import has_batch_norm
from secateur.engines.parallel import ddp, fsdp
from secateur.masks import mask_
from secateur.masks.parametrization import masked_places
from secateur.train import Callbacks, FinetuneSettings, TensorBatches, finetune

LR, SPARSITY = 0.001, 0.5
LENGTH = 16
"""Tokens of a row."""
Make = Callable[[], nn.Module]
Wrap = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True, slots=True)
class Task:
    """make: the network. rows: of a batch, over all ranks. steps: that a loop takes."""

    make: Make
    rows: int
    steps: int

    def data(self) -> TensorBatches:
        """So many batches."""
        generator = torch.Generator().manual_seed(0)
        count = self.steps * self.rows
        if self.make is fashion_net:
            x = torch.rand(count, 1, 28, 28, generator=generator)
            return TensorBatches(x, torch.randint(0, 10, (count,)), batch_size=self.rows)
        from engines_equal_models import VOCABULARY  # finds transformers in a child process alone

        x = torch.randint(0, VOCABULARY, (count, LENGTH), generator=generator)
        return TensorBatches(x, torch.randint(0, 4, (count,)), batch_size=self.rows)


def transformer() -> nn.Module:
    """MiniLM with a head, the same weights each time."""
    from engines_equal_models import minilm

    return minilm()[0].train()


TASKS: Mapping[str, tuple[Make, int]] = {"cnn": (fashion_net, 128), "minilm": (transformer, 32)}
"""How a network is made, and the rows of a batch of usual size."""
PEERS = {
    "finetune": "plain",
    "plain, masked": "plain",
    "finetune, masked": "plain",
    "plain, weight * mask": "plain",
    "ddp, own batch norm": "DDP",
    "ddp": "DDP",
    "fsdp, own batch norm": "fully_shard",
    "fsdp": "fully_shard",
}
"""What a loop is compared with."""


def alone(task: Task) -> dict[str, Loop]:
    """The loops of one process."""
    make = task.make
    return {
        "plain": usual(task, make),
        "finetune": ours(task, make),
        "plain, weight * mask": usual(task, lambda: multiplied(make())),
        "plain, masked": usual(task, lambda: masked(make())),
        "finetune, masked": ours(task, lambda: masked(make())),
    }


def together(task: Task, world: World) -> dict[str, Loop]:
    """Those of several ranks; own batch norm where there is batch norm."""
    make = task.make
    loops = {"DDP": usual(task, make, wrap=replicated)}
    kinds: dict[str, Any] = {"ddp": ddp, "fsdp": fsdp}
    for name, kind in kinds.items():
        if name == "fsdp":
            loops["fully_shard"] = usual(task, make, wrap=sharded)
        if has_batch_norm(make()):
            own = kind.make(world, sync_batch_norm=False)
            loops[f"{name}, own batch norm"] = ours(task, make, parallel=own)
        loops[name] = ours(task, make, parallel=kind.make(world))
    return loops


def masked(model: nn.Module) -> nn.Module:
    """Half of the weights masked, as secateur does."""
    mask_(model, sparsity=SPARSITY)
    return model


def multiplied(model: nn.Module) -> nn.Module:
    """The same masks as they are usually written: `weight * mask` in every forward."""
    places = masked_places(masked(model))
    kept = [(module, leaf, mask.kept.float()) for _, module, leaf, mask in places]
    for module, leaf, factor in kept:
        parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
        parametrize.register_parametrization(module, leaf, _Times(factor), unsafe=True)
    return model


class _Times(nn.Module):
    def __init__(self, factor: Tensor) -> None:
        super().__init__()
        self.register_buffer("factor", factor)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.factor


def usual(task: Task, make: Make, *, wrap: Wrap | None = None) -> Loop:
    """A training loop as it is usually written; under a process group each rank has its rows."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if wrap is not None else (0, 1)
    own = slice(rank * task.rows // size, (rank + 1) * task.rows // size)

    def loop(after_step: Callable[[], None]) -> None:
        model = make().train() if wrap is None else wrap(make().train())
        optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
        for x, y in task.data():
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x[own]), y[own])
            loss.item()
            loss.backward()
            optimizer.step()
            after_step()

    return loop


def ours(task: Task, make: Make, **how: Any) -> Loop:
    """`finetune`."""
    settings = FinetuneSettings(epochs=1, lr=LR, schedule="constant", progress=False)

    def loop(after_step: Callable[[], None]) -> None:
        callbacks = Callbacks(on_step=lambda step, loss: after_step())
        finetune(
            make(),
            task.data(),
            settings=settings,
            loss_fn=F.cross_entropy,
            callbacks=callbacks,
            **how,
        )

    return loop


def replicated(model: nn.Module) -> nn.Module:
    """Torch's DistributedDataParallel, as ours asks for it."""
    return DistributedDataParallel(model, broadcast_buffers=False, gradient_as_bucket_view=True)


def sharded(model: nn.Module) -> nn.Module:
    """Torch's FSDP2, around the same blocks as ours."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for parameter in model.parameters():  # it takes no other layout
        parameter.data = parameter.data.contiguous()
    for block in fsdp.blocks_of(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model
