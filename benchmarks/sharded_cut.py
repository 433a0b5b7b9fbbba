"""Cutting a model that ranks hold in parts: memory of a rank, and bytes sent, with momentum.

Three MLP blocks of 100 million parameters keep half of their hidden units. FSDP2's shards are cut
by `cut_sharded`, tensor-parallel parts by `cut_parallel_`. Peak memory is the process's, reset
before the cut.

    python benchmarks/sharded_cut.py [--ranks 2]

Writes `results/sharded_cut.json` and a table made from it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from environment import child_environment, environment
from torch import nn

HERE = Path(__file__).parent
WIDTH, HIDDEN, BLOCKS = 2048, 8192, 3
KEEP = 0.5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rank", nargs=2, metavar=("RANK", "FOLDER"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.rank is not None:
        run_rank(int(chosen.rank[0]), chosen.ranks, Path(chosen.rank[1]))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--ranks", str(chosen.ranks)]
        running = [
            subprocess.Popen([*command, "--rank", str(rank), folder], env=child_environment())
            for rank in range(chosen.ranks)
        ]
        if max(process.wait() for process in running):
            return 1
        rows = json.loads((Path(folder) / "rows.json").read_text(encoding="utf-8"))
    body = {"about": environment(HERE.parent), "ranks": chosen.ranks, "rows": rows}
    (HERE / "results" / "sharded_cut.json").write_text(json.dumps(body, indent=1) + "\n", "utf-8")
    (HERE / "results" / "sharded_cut.md").write_text(page(body), encoding="utf-8")
    return 0


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(BLOCKS):
        layers += [nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH)]
    return nn.Sequential(*layers)


def run_rank(rank: int, size: int, folder: Path) -> None:
    import torch.distributed as dist

    from secateur.engines.process_group import ProcessGroup

    torch.set_num_threads(1)
    store = dist.FileStore(str(folder / "store"), size)
    limit = datetime.timedelta(minutes=20)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
    world = ProcessGroup()
    rows = []
    for kind, prepare in (("FSDP2 shards", sharded), ("tensor parallel", parallel)):
        found = world.gather(cut_of(prepare, world), what="what was measured")
        rows.append({"kind": kind, "ranks": found})
    if rank == 0:
        (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    dist.destroy_process_group()


def cut_of(prepare: Any, world: Any) -> dict[str, float]:
    """Train a step, cut, and what that took of memory and messages."""
    model, cut, optimizer = prepare(world)
    model(torch.ones(2, WIDTH)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    held = bytes_of(model, optimizer)
    world.wait(what="the cut")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, sent, started = status("VmRSS"), world.traffic.payload_bytes, time.process_time()
    small = cut(model, optimizer)
    return {
        "held_mb": held,
        "held_after_mb": bytes_of(small, optimizer),
        "rss_mb": before,
        "peak_mb": status("VmHWM"),
        "rss_after_mb": status("VmRSS"),
        "sent_mb": (world.traffic.payload_bytes - sent) / 1e6,
        "cpu_s": time.process_time() - started,
    }


def half(model: nn.Module) -> tuple[Any, Any]:
    """The graph, and a plan that keeps a random half of every hidden width."""
    import secateur as sc

    graph = sc.trace(model, torch.zeros(1, WIDTH, device="meta"))
    generator = torch.Generator().manual_seed(0)
    scores = {
        group.id: torch.rand(group.size, generator=generator)
        for group in graph.groups
        if group.pinned is None and group.size == HIDDEN
    }
    return graph, sc.plan(graph, scores, keep=KEEP, groups=list(scores))


def sharded(world: Any) -> Any:
    from torch.distributed.fsdp import fully_shard

    from secateur.engines.resharding import cut_sharded

    with torch.device("meta"):
        model, empty = network(), network()
    _, plan = half(empty)

    def shard(net: nn.Module) -> None:
        for layer in net:
            fully_shard(layer)
        fully_shard(net)

    shard(model)
    filled_(model)

    def cut(net: nn.Module, optimizer: Any) -> nn.Module:
        return cut_sharded(net, plan, empty=empty, shard=shard, world=world, optimizer=optimizer)

    return model, cut, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def parallel(world: Any) -> Any:
    from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
    from secateur.engines.tensor_parallel.cutting import cut_parallel_
    from secateur.engines.tensor_parallel.local import parallelize_

    with torch.device("meta"):
        model = network()
    graph, plan = half(model)
    x = torch.zeros(1, WIDTH, device="meta")
    shared = tensor_parallel_plan(model, graph, x, size=world.size)
    parallelize_(model, shared, world)
    filled_(model)

    def cut(net: nn.Module, optimizer: Any) -> nn.Module:
        cut_parallel_(net, plan, shared, graph=graph, world=world, optimizer=optimizer)
        return net

    return model, cut, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


def filled_(model: nn.Module) -> None:
    model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.01)


def bytes_of(model: nn.Module, optimizer: Any) -> float:
    """MB of this rank's parameters and momentum."""
    from secateur.engines.shards import local_of

    held = list(model.parameters())
    held += [v for s in optimizer.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
    return sum(local_of(t).numel() * t.element_size() for t in held) / 1e6


def status(field: str) -> float:
    """A line of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(field)


def page(body: dict[str, Any]) -> str:
    about, whole = body["about"], 2 * 4 * BLOCKS * (2 * WIDTH * HIDDEN + WIDTH + HIDDEN) / 1e6
    head = [
        "# Cutting a model that ranks hold in parts",
        "",
        "Generated by `python benchmarks/sharded_cut.py`; do not edit. "
        f"{BLOCKS} MLP blocks of {WIDTH} x {HIDDEN}, float32, with momentum: {whole:.0f} MB in all "
        f"on {body['ranks']} ranks of gloo. A random {KEEP:.0%} of every hidden width stays. "
        "*Held*: a rank's parameters and momentum. *Growth*: the peak of the process's memory "
        "during the cut over that just before it. *Sent*: rows that changed their rank, of "
        "parameters and momentum. The largest of the ranks.",
        "",
        f"{about['cpu']}, {about['threads']} thread a rank; torch {about['torch']}; commit "
        f"{about['commit']}; {about['date']}.",
        "",
        "| Parts | Held before (MB) | after | Growth (MB) | of what was held | Sent (MB) | CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(_line, body["rows"])]) + "\n"


def _line(row: dict[str, Any]) -> str:
    ranks = row["ranks"]
    growth = max(own["peak_mb"] - own["rss_mb"] for own in ranks)
    held = max(own["held_mb"] for own in ranks)
    cells = [
        row["kind"],
        f"{held:.0f}",
        f"{max(own['held_after_mb'] for own in ranks):.0f}",
        f"{growth:.0f}",
        f"{growth / held:.1%}",
        f"{max(own['sent_mb'] for own in ranks):.1f}",
        f"{max(own['cpu_s'] for own in ranks):.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
