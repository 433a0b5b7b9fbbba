"""One rank of a program that shares models out over real processes; writes what it saw as JSON.

    python program.py RANK SIZE STORE OUT

Every check that needs processes is in this one program, for starting them is what takes long.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

import secateur as sc
from secateur.core.copies import copied
from secateur.cut.apply import cut_
from secateur.engines.kinds import parse_kind
from secateur.engines.leaving import leave
from secateur.engines.parallel.none import WHOLE
from secateur.engines.process_group import ProcessGroup
from secateur.engines.resharding import cut_sharded
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.training import Parallel
from secateur.train import Callbacks, FinetuneSettings, finetune

CLIP = 0.3
"""Below the norm of most steps' gradients."""


def network(seed: int = 0, dropout: float = 0.0) -> nn.Sequential:
    """Widths that two ranks cannot halve, a norm with buffers, a residual stream that stays."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Linear(7, 13), nn.BatchNorm1d(13), nn.ReLU(), nn.Dropout(dropout),
        nn.Linear(13, 9), nn.Dropout(dropout), nn.LayerNorm(9), nn.Linear(9, 11), nn.ReLU(),
        nn.Linear(11, 4),
    )  # fmt: skip
    return net.double()


def batch(seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(8, 7, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 4, (8,), generator=generator)


def train_(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    x, y = batch()
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def full(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def furthest(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert found.keys() == expected.keys()
    pairs = [(full(found[name]).detach().double(), expected[name].double()) for name in expected]
    return max(float((own - other).abs().max()) for own, other in pairs)


def shard(model: nn.Module) -> None:
    fully_shard(model[4])
    fully_shard(model)


def cut_of_shards(world: ProcessGroup, kind: str) -> dict[str, Any]:
    """FSDP2: trained, cut with its optimizer, trained again; beside one process."""

    def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
        if kind == "adamw":
            return torch.optim.AdamW(model.parameters(), lr=0.01, eps=1e-3)
        return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    whole = network()
    graph = sc.trace(whole, batch()[0])
    plan = sc.plan(graph, sc.score(graph, whole, criterion="l2"), budget="params=60%")
    mine = optimizer_of(whole)
    train_(whole, mine, 2)
    cut_(whole, plan, optimizer=mine)
    expected = train_(whole, mine, 2)

    sharded = network()
    shard(sharded)
    own = optimizer_of(sharded)
    train_(sharded, own, 2)
    world.traffic.payload_bytes = 0
    empty = network().to("meta")
    small = cut_sharded(sharded, plan, empty=empty, shard=shard, world=world, optimizer=own)
    moved = world.traffic.payload_bytes
    freed = sum(p.to_local().untyped_storage().nbytes() for p in sharded.parameters())
    losses = train_(small, own, 2)
    states = {
        f"{number}.{key}": value
        for number, p in enumerate(small.parameters())
        for key, value in own.state[p].items()
    }
    reference = {
        f"{number}.{key}": value
        for number, p in enumerate(whole.parameters())
        for key, value in mine.state[p].items()
    }
    return {
        "units": sum(map(len, plan.keep.values())),
        "losses": [abs(a - b) for a, b in zip(losses, expected, strict=True)],
        "weights": furthest(small.state_dict(), whole.state_dict()),
        "state": furthest(states, reference),
        "rows": [p.to_local().shape[0] for p in small.parameters()],
        "moved": moved,
        "freed": freed,
    }


def fine_tuned(
    parallel: Parallel,
    model: nn.Module,
    folder: Path | None = None,
    stop: int = 0,
    *,
    ema: float | None,
) -> tuple[dict[str, Tensor], int | None]:
    """Weights after three epochs, and the step from which it went on. stop: the step after which
    the training is broken off. ema: of averaged weights."""
    trained = copied(model)
    how: dict[str, Any] = {"lr": 0.05, "schedule": "constant", "clip_norm": CLIP, "ema": ema}
    settings = FinetuneSettings(epochs=3, seed=3, **how)
    data = [batch(seed) for seed in (1, 2, 3)]

    def on_step(step: int, loss: float) -> None:
        if step == stop:
            raise InterruptedError

    log = finetune(
        trained,
        data,
        settings=settings,
        loss_fn=nn.CrossEntropyLoss(),
        callbacks=Callbacks(on_step=on_step),
        parallel=parallel,
        checkpoint_dir=folder,
    )
    return trained.state_dict(), log.resumed_at


def recovery(world: ProcessGroup, kinds: list[str], folder: Path) -> dict[str, Any]:
    """finetune, broken off in its second epoch, gone on with by the same kind; and masked, by the
    others too, where one of the two shares the model out. Beside one process, which `none` is."""
    found: dict[str, Any] = {}
    for case, model in {"plain": network(), "masked": network()}.items():
        if case == "masked":
            sc.mask_(model, sparsity=0.5)
        ema = 0.7 if case == "masked" else None
        expected, _ = fine_tuned(WHOLE, model, ema=ema)

        def made(text: str) -> Parallel:
            return parse_kind(text, ranks=world.size).make(world, example_inputs=batch()[0])

        for kind in kinds if case == "masked" else kinds[:1]:
            begun = folder / case / kind
            with contextlib.suppress(InterruptedError):
                fine_tuned(made(kind), model, begun, stop=5, ema=ema)
            for other in kinds if case == "masked" else [kind]:
                if "tp" not in kind + other:
                    continue
                world.wait(what="a checkpoint")
                own = folder / case / f"{kind} {other}"
                if world.rank == 0:
                    shutil.copytree(begun, own)
                world.wait(what="a copy of it")
                weights, resumed_at = fine_tuned(made(other), model, own, ema=ema)
                assert resumed_at == 3  # an epoch has three steps
                found[f"{case}: {kind} to {other}"] = furthest(weights, expected)
        own_part = made("tp").lay_out(model)
        found[f"{case} held"] = sum(parameter.numel() for parameter in own_part.parameters())
    return found


def dropped(world: ProcessGroup) -> dict[str, Any]:
    """With dropout within a shared-out width and outside: what all ranks hold stays the same."""
    model = network(dropout=0.5)
    graph = sc.trace(model, batch()[0])
    plan = tensor_parallel_plan(model, graph, batch()[0], size=world.size)
    local = parallelize_(model, plan, world).train()
    masks: list[Tensor] = []
    for path in plan.meetings.own_random:
        module = local.get_submodule(path)
        module.register_forward_hook(lambda m, args, out: masks.append((out == 0).double()))
    torch.manual_seed(5)
    losses = train_(local, torch.optim.SGD(local.parameters(), lr=0.05), 3)
    shared = plan.tensors.keys()
    same = [p.detach().sum().item() for n, p in local.named_parameters() if n not in shared]
    return {"losses": losses, "same": same, "mask": masks[0].sum(0).tolist()}


def main(rank: int, size: int, store: str, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
    )
    world = ProcessGroup()
    found: dict[str, Any] = {}
    if size == 2:
        found = {kind: cut_of_shards(world, kind) for kind in ("momentum", "adamw")}
        kinds = ["tp", "fsdp", "none"]
        found["recovery"] = recovery(world, kinds, Path(f"{out}.folder"))
        found["dropped"] = dropped(world)
    else:
        kinds = ["fsdp=2,tp=2", "dp=2,tp=2", "tp", "none"]
        found["recovery"] = recovery(world, kinds, Path(f"{out}.folder"))
        found["momentum"] = cut_of_shards(world, "momentum")
    Path(f"{out}.{rank}").write_text(json.dumps(found), "utf-8")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
    leave(0)
