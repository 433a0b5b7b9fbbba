"""One rank of `kept_gradients.py`.

    python benchmarks/kept_gradients_run.py RANK SIZE STORE OUT RATE

Steps of a masked multilayer perceptron under DistributedDataParallel, with all gradients sent and
with those of kept weights alone. RATE: what the host's interface lets through, as `tc` writes it,
"none" for no limit.
"""

from __future__ import annotations

import datetime
import json
import statistics
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from namespaces import INTERFACE, sent_bytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from secateur.engines.kept_gradients import send_kept_
from secateur.masks import fold_, mask_

WIDTH, LAYERS, BATCH, STEPS = 1024, 4, 32, 6
SPARSITIES = (0.5, 0.9, 0.98)


def model(sparsity: float) -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)))
    mask_(net, sparsity=sparsity)
    return net


def steps(rank: int, sparsity: float, *, kept: bool) -> tuple[dict[str, Any], nn.Module]:
    net = model(sparsity)
    with warnings.catch_warnings():
        # torch 2.13 has another name for it, which 2.11 does not know
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
        averaging = DistributedDataParallel(
            net, gradient_as_bucket_view=True, broadcast_buffers=False
        )
    if kept:
        send_kept_(averaging, net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    seconds, cpu, sent = [], [], []
    for step in range(STEPS):
        x = torch.randn(BATCH, WIDTH, generator=torch.Generator().manual_seed(9 * step + rank))
        dist.barrier()
        clock, process, before = time.perf_counter(), time.process_time(), sent_bytes()
        optimizer.zero_grad()
        averaging(x).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - clock)
        cpu.append(time.process_time() - process)
        sent.append(sent_bytes() - before)
    took = {  # the first step finds the buckets, the second has them in a new order
        "wall_s": statistics.median(seconds[2:]),
        "cpu_s": statistics.median(cpu[2:]),
        "sent_bytes": statistics.median(sent[2:]),
    }
    return took, fold_(net)


def main() -> None:
    rank, size, store, out, rate = int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:6]
    torch.set_num_threads(1)
    if rate != "none":
        limit = f"tc qdisc add dev {INTERFACE} root tbf rate {rate} burst 256kb latency 200ms"
        subprocess.run(limit.split(), check=True)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=120),
    )
    found = {}
    for sparsity in SPARSITIES:
        dense, one = steps(rank, sparsity, kept=False)
        few, other = steps(rank, sparsity, kept=True)
        pairs = zip(one.parameters(), other.parameters(), strict=True)
        gap = max(float((a - b).detach().abs().max()) for a, b in pairs)
        found[str(sparsity)] = {"all": dense, "kept": few, "largest_difference": gap}
    dist.destroy_process_group()
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
