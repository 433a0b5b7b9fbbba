"""One rank of a program that masks real sharded models: writes what it saw as JSON.

    python sharded_program.py RANK SIZE STORE OUT

Every check that needs processes is in this one program, for starting them is what takes long.
"""

from __future__ import annotations

import datetime
import json
import sys
import warnings
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from secateur.core.errors import SecateurError
from secateur.engines import kept_gradients as kept_gradients_module
from secateur.engines.kept_gradients import send_kept_
from secateur.engines.leaving import leave
from secateur.engines.process_group import ProcessGroup
from secateur.masks import fold_, keep_zeros_, mask_, mask_shards_

SIZES = (7, 12, 8, 4)


def model(seed: int = 0) -> nn.Sequential:
    """Rows that two ranks cannot share evenly, equal weights among them, a tied pair."""
    torch.manual_seed(seed)
    layers = [nn.Linear(a, b) for a, b in pairwise(SIZES)]
    net = nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2], nn.Linear(4, 5))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(8).round_().div_(8)
    return net


def fsdp() -> nn.Module:
    net = model()
    fully_shard(net[0])
    fully_shard(net)
    return net


def split(net: nn.Module, mesh: DeviceMesh, placements: dict[str, list[Any]]) -> nn.Module:
    for path, module in net.named_modules():
        for leaf, parameter in list(module.named_parameters(recurse=False)):
            name = f"{path}.{leaf}"
            if name in placements:
                split_one = distribute_tensor(parameter.detach(), mesh, placements[name])
                setattr(module, leaf, nn.Parameter(split_one))
    return net


def tensor_parallel() -> nn.Module:
    """Columns, rows, a copy on every rank, and a weight that is no DTensor at all."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    placements = {"0.weight": [Shard(0)], "2.weight": [Shard(1)], "4.weight": [Replicate()]}
    return split(model(), mesh, placements)


def both() -> nn.Module:
    """FSDP2 over tensor parallelism, on four ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    net = model()
    placements = {"0.weight": [Shard(0)], "2.weight": [Shard(1)], "4.weight": [Shard(0)]}
    net = split(net, mesh["tp"], placements)
    return split_rest(net, mesh)


def split_rest(net: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """What tensor parallelism left is a copy on its ranks."""
    rest = {n: [Replicate()] for n, p in net.named_parameters() if not isinstance(p, DTensor)}
    net = split(net, mesh["tp"], rest)
    fully_shard(net, mesh=mesh["dp"])
    return net


def copied() -> nn.Module:
    """Tensor parallelism within each of two copies of the model, on four ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    return split(model(), mesh["tp"], {"0.weight": [Shard(0)], "2.weight": [Shard(1)]})


def hybrid() -> nn.Module:
    """FSDP2 within each of two copies, on four ranks."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "shards"))
    net = model()
    fully_shard(net, mesh=mesh)
    return net


WAYS: dict[str, dict[str, Any]] = {
    "global": {"sparsity": 0.6},
    "layer": {"sparsity": 0.35, "scope": "layer"},
    "by name": {"sparsity": {"2.weight": 0.5}},
    "threshold": {"threshold": 0.25},
    "squares": {"sparsity": 0.6, "criterion": "l2"},
}


def zeros(net: nn.Module) -> dict[str, list[float]]:
    """The whole weights."""
    found = {}
    for name, parameter in net.named_parameters():
        whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
        found[name] = whole.detach().flatten().tolist()
    return found


def same_as_one_process(build: Callable[[], nn.Module], world: ProcessGroup) -> dict[str, bool]:
    """Whether plan and weights are those of one process, for each way of masking."""
    found = {}
    for way, how in WAYS.items():
        net, one = build(), model()
        plan = mask_(one, **how)
        before = world.traffic.payload_bytes
        ours = mask_shards_(net, world, **how)
        assert world.traffic.payload_bytes - before < 50_000
        alike = ours.digest == plan.digest and ours.layers == plan.layers
        found[way] = alike and zeros(fold_(net)) == zeros(fold_(one))
    return found


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> list[float]:
    generator = torch.Generator().manual_seed(3)
    losses = []
    for _ in range(count):
        x = torch.randn(16, SIZES[0], generator=generator)
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def trained(world: ProcessGroup) -> dict[str, Any]:
    """A masked FSDP2 model trained beside a masked one in one process: weights after each."""
    net, one = fsdp(), model()
    pair = []
    for each in (net, one):
        optimizer = torch.optim.Adam(each.parameters(), lr=0.05, weight_decay=0.1)
        steps(each, optimizer, 3)  # momentum that would move what is masked
        pair.append(optimizer)
    plan, ours = mask_(one, sparsity=0.6), mask_shards_(net, world, sparsity=0.6)
    handle = keep_zeros_(net, pair[0])
    losses = steps(net, pair[0], 5), steps(one, pair[1], 5)
    more = mask_(one, sparsity=0.8), mask_shards_(net, world, sparsity=0.8)
    after = steps(net, pair[0], 3), steps(one, pair[1], 3)
    left = [
        parameter.grad.to_local()[parameter.to_local() == 0].abs().sum().item()
        for name, parameter in net.named_parameters()
        if name.endswith("weight") and parameter.grad is not None
    ]
    ours_end, one_end = zeros(net), zeros(fold_(one))
    gap = max(
        abs(a - b) for name in one_end for a, b in zip(ours_end[name], one_end[name], strict=True)
    )
    same_zeros = all(
        [a == 0 for a in ours_end[n]] == [b == 0 for b in one_end[n]]
        for n in one_end
        if n.endswith("weight")
    )
    fold_(net)
    handle.remove()
    steps(net, pair[0], 2)
    free = [w for name, values in zeros(net).items() if name.endswith("weight") for w in values]
    return {
        "first": plan.digest == ours.digest,
        "second": more[0].digest == more[1].digest,
        "losses": [max(abs(a - b) for a, b in zip(*pair, strict=True)) for pair in (losses, after)],
        "gap": gap,
        "same_zeros": same_zeros,
        "gradients_of_masked": left,
        "zeros_when_freed": sum(w == 0 for w in free) / len(free),
    }


def patterns(world: ProcessGroup) -> dict[str, Any]:
    mesh = init_device_mesh("cpu", (world.size,))

    def split_one(dim: int) -> nn.Module:
        torch.manual_seed(1)
        return split(nn.Sequential(nn.Linear(8, 12)), mesh, {"0.weight": [Shard(dim)]})

    found: dict[str, Any] = {}
    torch.manual_seed(1)
    for pattern in ("2:4", "block:2x1", "block:6x4", "block:4x1"):
        how = {} if ":4" in pattern and "block" not in pattern else {"sparsity": 0.5}
        for dim in (0, 1):
            torch.manual_seed(1)
            plan = mask_(nn.Sequential(nn.Linear(8, 12)), pattern=pattern, **how)
            try:
                ours = mask_shards_(split_one(dim), world, pattern=pattern, **how)
                found[f"{pattern} {dim}"] = plan.digest == ours.digest
            except ValueError as error:
                found[f"{pattern} {dim}"] = str(error)
    return found


def evidence(world: ProcessGroup) -> bool:
    """A criterion that looks at gradients, of which each rank has its shards."""
    x = torch.randn(16, SIZES[0], generator=torch.Generator().manual_seed(3))
    net, one = fsdp(), model()
    net(x).square().sum().backward()
    told = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
    ours = mask_shards_(net, world, sparsity=0.5, criterion="taylor_weight", evidence=told)
    plan = mask_(
        one,
        sparsity=0.5,
        criterion="taylor_weight",
        data=[(x, x)],
        loss_fn=lambda y, *_: y.square().sum(),
    )
    return ours.layers == plan.layers and ours.digest == plan.digest


def refused(world: ProcessGroup) -> list[str]:
    """What goes wrong is said on every rank, and nobody waits for ever."""
    found = []
    bad = fsdp()
    if world.rank == 0:
        with torch.no_grad():
            bad[2].weight.to_local()[0, 0] = float("nan")
    attempts: list[Callable[[], Any]] = [
        lambda: mask_shards_(bad, world, sparsity=0.5),
        lambda: mask_shards_(fsdp(), world, sparsity=0.5 + world.rank / 10),
        lambda: mask_shards_(fsdp(), world, sparsity=0.5, criterion="lamp"),
        lambda: mask_shards_(fsdp(), world, sparsity=0.5, criterion="snip"),
        lambda: drifted(world),
    ]
    for attempt in attempts:
        try:
            attempt()
            found.append("nothing")
        except (SecateurError, ValueError) as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def kept_gradients(world: ProcessGroup) -> dict[str, Any]:
    """Data parallelism that sends kept gradients alone, while masks move, or all of them."""
    ends, sizes = [], []
    for kept in (False, True):
        net = model()
        mask_(net, sparsity=0.7)
        averaging = DistributedDataParallel(net)
        if kept:
            send_kept_(averaging, net)
            hook = kept_gradients_module._average

            def counted(state: Any, bucket: Any, hook: Any = hook) -> Any:
                index = state.index(bucket)
                sizes.append(None if index is None else len(index))
                return hook(state, bucket)

            kept_gradients_module._average = counted
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        for step in range(6):
            if step == 3:
                mask_(net, sparsity=0.9)
            generator = torch.Generator().manual_seed(10 * step + world.rank)
            optimizer.zero_grad()
            averaging(torch.randn(8, SIZES[0], generator=generator)).square().mean().backward()
            optimizer.step()
        ends.append(zeros(fold_(net)))
    total = sum(p.numel() for p in model().parameters())
    return {"same": ends[0] == ends[1], "sizes": sizes, "total": total}


def drifted(world: ProcessGroup) -> None:
    net = model(seed=world.rank)
    mask_shards_(net, world, sparsity=0.5)


def main() -> None:
    rank, size, store, out = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    warnings.simplefilter("error", UserWarning)
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=40),
    )
    world = ProcessGroup()
    found: dict[str, Any] = {
        "fsdp": same_as_one_process(fsdp, world),
        "tensor_parallel": same_as_one_process(tensor_parallel, world),
    }
    if size == 4:
        found |= {
            build.__name__: same_as_one_process(build, world) for build in (both, copied, hybrid)
        }
    else:
        found["plain"] = same_as_one_process(model, world)
        found["trained"] = trained(world)
        found["patterns"] = patterns(world)
        found["evidence"] = evidence(world)
        found["refused"] = refused(world)
        found["kept_gradients"] = kept_gradients(world)
    with open(f"{out}.{rank}", "w", encoding="utf-8") as file:
        json.dump(found, file)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    leave(0)
