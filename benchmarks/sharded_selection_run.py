"""One rank of `sharded_selection.py`, or the one process that it is compared with.

    python benchmarks/sharded_selection_run.py RANK SIZE STORE OUT LAYOUT

A model of the shape of SmolLM2-360M is made on meta, sharded, and filled with weights that depend
on their place in the whole model alone. No process but the one alone ever holds it whole. Of each
masking: the growth of the resident set's peak, what was sent, seconds, and the plan's hash.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from namespaces import sent_bytes
from speed_run import peak_mib, resident_mib
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)

from secateur.core.shards import Shard
from secateur.engines.process_group import ProcessGroup
from secateur.masks import fold_, mask_, mask_shards_

SPARSITY = 0.8
BLOCK = 64
"""Rows that are drawn with one seed."""
VALUES = ("normal", "bfloat16")
SCOPES = ("global", "layer")


class Layer(nn.Module):
    """The weights of a layer of SmolLM2-360M; nothing is computed with them here."""

    def __init__(self, width: int = 960, inner: int = 2_560, keys: int = 320) -> None:
        super().__init__()
        self.q_proj = nn.Linear(width, width, bias=False)
        self.k_proj = nn.Linear(width, keys, bias=False)
        self.v_proj = nn.Linear(width, keys, bias=False)
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))


class Model(nn.Module):
    """All of its weights: embeddings, which are its last layer too, and 32 layers."""

    def __init__(self, layers: int = 32, words: int = 49_152, width: int = 960) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        self.layers = nn.ModuleList(Layer() for _ in range(layers))
        self.norm = nn.RMSNorm(width)


def meta_model() -> Model:
    with torch.device("meta"):
        return Model()


def fsdp() -> nn.Module:
    """FSDP2 over all ranks, a layer at a time."""
    model = meta_model()
    for layer in model.layers:
        fully_shard(layer)
    fully_shard(model)
    return model


def fsdp_and_tensor_parallel() -> nn.Module:
    """Linear layers split by rows or columns over two ranks, all of it by FSDP2 over two."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = meta_model()
    columns = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
    plan: dict[str, Any] = {f"layers.*.{name}": ColwiseParallel() for name in columns}
    for name in ("o_proj", "down_proj"):
        plan[f"layers.*.{name}"] = RowwiseParallel()
    parallelize_module(model, mesh["tp"], plan)
    for layer in model.layers:
        fully_shard(layer, mesh=mesh["dp"])
    fully_shard(model, mesh=mesh["dp"])
    return model


def fill_(model: nn.Module, world: ProcessGroup | None, values: str) -> None:
    """Weights by their place, of this rank's shards alone."""
    found = dict(model.named_parameters())
    if world is None:
        boxes = {n: (p.detach(), Shard.whole(tuple(p.shape))) for n, p in found.items()}
    else:
        boxes = {n: (part.tensor, part.shard) for n, part in world.parts(found).items()}
    for number, (local, shard) in enumerate(boxes.values()):
        for rows, block in blocks(number, shard):
            local[rows] = block.bfloat16() if values == "bfloat16" else block


def blocks(number: int, shard: Shard) -> Iterator[tuple[slice, Tensor]]:
    """The rows of a shard with what stands there, some at a time."""
    start, stop = shard.start[0], shard.start[0] + shard.size[0]
    for first in range(start // BLOCK * BLOCK, stop, BLOCK):
        generator = torch.Generator().manual_seed(number * 1_000_003 + first)
        drawn = torch.randn(BLOCK, *shard.shape[1:], generator=generator) * 0.02
        for dim, (begin, size) in enumerate(zip(shard.start[1:], shard.size[1:], strict=True), 1):
            drawn = drawn.narrow(dim, begin, size)
        top, bottom = max(first, start), min(first + BLOCK, stop)
        yield slice(top - start, bottom - start), drawn[top - first : bottom - first]


def measured(work: Callable[[], Any], world: ProcessGroup | None) -> tuple[Any, dict[str, Any]]:
    """What the work gives, and what it took."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    payload = 0 if world is None else world.traffic.payload_bytes
    before, sent = resident_mib(), counted(world)
    clock = time.perf_counter(), time.process_time()
    result = work()
    took = {
        "wall_s": round(time.perf_counter() - clock[0], 3),
        "cpu_s": round(time.process_time() - clock[1], 3),
        "growth_mib": round(peak_mib() - before, 2),
    }
    if world is not None:
        took["sent_bytes"] = counted(world) - sent
        took["payload_bytes"] = world.traffic.payload_bytes - payload
    return result, took


def counted(world: ProcessGroup | None) -> int:
    """What this host has sent, when nothing is on its way any more."""
    if world is None:
        return 0
    dist.barrier()
    time.sleep(0.5)
    return sent_bytes()


def maskings(build: Callable[[], nn.Module], world: ProcessGroup | None) -> dict[str, Any]:
    model = build()
    model.to_empty(device="cpu")
    found = {}
    for values in VALUES:
        for scope in SCOPES:
            fill_(model, world, values)
            how: dict[str, Any] = {"sparsity": SPARSITY, "scope": scope}
            if world is None:
                plan, took = measured(lambda how=how: mask_(model, **how), None)
            else:
                plan, took = measured(lambda how=how: mask_shards_(model, world, **how), world)
            took["digest"] = plan.digest
            took["weights"] = sum(layer.weights for layer in plan.layers)
            took["tensors"] = len(plan.layers)
            if world is not None:
                own = sum(mask.shard.own for mask in plan.kept.values())
                took["shard_mib"] = round(own * 4 / 2**20, 2)
                took["bits_mib"] = round(own / 8 / 2**20, 2)
            found[f"{values} {scope}"] = took
            fold_(model)
    return found


def main() -> None:
    rank, size, store, out, layout = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
    torch.set_num_threads(1)
    if size == 1:
        found = maskings(meta_model, None)
    else:
        limit = datetime.timedelta(seconds=300)
        shared = dist.FileStore(store, size)
        dist.init_process_group("gloo", store=shared, rank=rank, world_size=size, timeout=limit)
        found = maskings(LAYOUTS[layout], ProcessGroup())
        dist.destroy_process_group()
    Path(out).write_text(json.dumps(found), encoding="utf-8")


LAYOUTS: dict[str, Callable[[], nn.Module]] = {
    "fsdp": fsdp,
    "fsdp_and_tensor_parallel": fsdp_and_tensor_parallel,
}

if __name__ == "__main__":
    main()
