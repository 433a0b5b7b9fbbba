"""Tensor parallelism from a model's own groups: what is shared out, what is sent, what is equal.

Every model runs one training step in float64 in one process and on ranks of gloo; outputs and all
gradients are compared. Bytes are what a rank gives to sums in a step, counted where it is done.

    python benchmarks/tensor_parallel.py [--ranks 2] [--only ResNet-18 ...]

A run that is killed goes on where it was: rows are kept in runs/tensor_parallel/. Writes
`results/tensor_parallel.json` and a table made from it.
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
from tensor_parallel_models import MODELS, settled
from torch import Tensor, nn

HERE = Path(__file__).parent
RUNS = HERE.parent / "runs" / "tensor_parallel"
RESULTS = HERE / "results"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=list(MODELS))
    parser.add_argument("--rank", nargs=2, metavar=("RANK", "STORE"), help=argparse.SUPPRESS)
    parser.add_argument("--page", action="store_true", help="make the page from what there is")
    chosen = parser.parse_args()
    if chosen.rank is not None:
        run_rank(int(chosen.rank[0]), chosen.ranks, chosen.rank[1], chosen.only)
        return 0
    failed = 0 if chosen.page else start(chosen.ranks, chosen.only)
    write_page()
    return failed


def start(ranks: int, only: list[str]) -> int:
    """Run the ranks; the exit code of the first that failed."""
    RUNS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--ranks", str(ranks), "--only", *only]
        running = [
            subprocess.Popen(
                [*command, "--rank", str(rank), f"{folder}/store"], env=child_environment()
            )
            for rank in range(ranks)
        ]
        return max(process.wait() for process in running)


def run_rank(rank: int, size: int, store: str, only: list[str]) -> None:
    """One rank goes through the models; rank 0 writes the rows."""
    import torch.distributed as dist
    from torchvision_ops import define_torchvision_ops

    from secateur.engines.process_group import ProcessGroup

    torch.set_num_threads(1)
    kept = define_torchvision_ops()
    limit = datetime.timedelta(minutes=20)
    group = dist.FileStore(store, size)
    dist.init_process_group("gloo", store=group, rank=rank, world_size=size, timeout=limit)
    world, path = ProcessGroup(), RUNS / f"ranks_{size}.jsonl"
    done = world.first(sorted(rows_of(path)), what="the rows there are")
    for name in only:
        if name in done:
            continue
        row = {"model": name, "ranks": size, **measured(name, world)}
        if rank == 0:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), file=sys.stderr, flush=True)
    dist.destroy_process_group()
    del kept


def measured(name: str, world: Any) -> dict[str, Any]:
    """One model: how it is shared out, and one step beside that of one process."""
    import secateur as sc
    from secateur.core.copies import copied
    from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
    from secateur.engines.tensor_parallel.local import parallelize_
    from secateur.engines.tensor_parallel.whole import part_of

    torch.manual_seed(0)
    model, inputs = settled(MODELS[name]())
    graph = sc.trace(model, inputs)
    started = time.process_time()
    plan = tensor_parallel_plan(model, graph, inputs, size=world.size)
    seconds = time.process_time() - started
    local = parallelize_(copied(model), plan, world).train()
    before = (world.traffic.calls, world.traffic.payload_bytes)
    outs, found = step(local, inputs)
    calls, sent = world.traffic.calls - before[0], world.traffic.payload_bytes - before[1]
    expected, gradients = step(model.train(), inputs)
    errors = [error_of(a, b) for a, b in zip(outs, expected, strict=True)]
    assert found.keys() == gradients.keys()
    parts = {n: part_of(g, n, plan, world.rank) for n, g in gradients.items()}
    gradient = max(error_of(found[n], parts[n]) for n in found)
    held = sum(parameter.numel() for parameter in local.parameters())
    everyone = world.gather([max(errors), gradient, held], what="the errors")
    return {
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "held": [own[2] for own in everyone],
        "groups": len(plan.bounds),
        "shared_params": plan.parameters,
        "shared_macs": plan.macs,
        "sums": len(plan.meetings.sums),
        "gradient_sums": len(plan.meetings.copies) + len(plan.meetings.gradients),
        "calls_a_step": calls,
        "bytes_a_step": sent,
        "output_error": max(own[0] for own in everyone),
        "gradient_error": max(own[1] for own in everyone),
        "plan_cpu_s": round(seconds, 2),
    }


def step(model: nn.Module, inputs: Any) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Outputs and gradients of a loss in which every element of the first output counts."""
    from secateur.graph import call_arguments, tensors_in

    args, kwargs = call_arguments(inputs)
    outs = [out for out in tensors_in(model(*args, **kwargs)) if out.requires_grad][:1]
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(outs[0].shape, generator=generator, dtype=outs[0].dtype)
    (outs[0] * weight).mean().backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return [out.detach() for out in outs], gradients


def error_of(found: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest element, or to 1e-3 where all are smaller
    (gradients that are zero but for rounding)."""
    if not found.numel():
        return 0.0
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-3))


def rows_of(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    lines = path.read_text(encoding="utf-8").splitlines()
    return {row["model"]: row for row in map(json.loads, lines)}


def write_page() -> None:
    rows = [row for path in sorted(RUNS.glob("ranks_*.jsonl")) for row in rows_of(path).values()]
    body = {"about": environment(HERE.parent), "rows": rows}
    text = json.dumps(body, indent=1) + "\n"
    (RESULTS / "tensor_parallel.json").write_text(text, encoding="utf-8")
    (RESULTS / "tensor_parallel.md").write_text(page(body), encoding="utf-8")


def page(body: dict[str, Any]) -> str:
    """The Markdown page of a results file."""
    about = body["about"]
    head = [
        "# Tensor parallelism from a model's own groups",
        "",
        "Generated by `python benchmarks/tensor_parallel.py`; do not edit. Random weights, "
        "float64, gloo. *Shared out*: the share of all parameters, and of the "
        "multiply-accumulates of a forward, that is divided among the ranks; the rest every rank "
        "has. *Held*: parameters of the rank with most, of those of the whole model. *Sent*: what "
        "a rank gives to sums in one training step (forward and backward), and in how many sums. "
        "*Errors*: the largest difference to one process, of outputs and of all gradients, "
        "relative to the largest element. Nothing is said about any model: every line is found "
        "from its recorded forward.",
        "",
        f"{about['cpu']}, {about['threads']} thread a rank; Python {about['python']}, torch "
        f"{about['torch']}, timm {about['timm']}, transformers {about['transformers']}; commit "
        f"{about['commit']}; {about['date']}.",
        "",
        "| Model | Ranks | Groups | Shared out: params | MACs | Held | Sent a step | Sums "
        "| Output error | Gradient error | Plan (CPU s) |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    order = {name: number for number, name in enumerate(MODELS)}
    rows = sorted(body["rows"], key=lambda row: (row["ranks"], order.get(row["model"], 99)))
    return "\n".join([*head, *map(_line, rows)]) + "\n"


def _line(row: dict[str, Any]) -> str:
    cells = [
        row["model"],
        str(row["ranks"]),
        str(row["groups"]),
        f"{row['shared_params']:.1%}",
        f"{row['shared_macs']:.1%}",
        f"{max(row['held']) / row['params']:.1%}",
        f"{row['bytes_a_step'] / 1e6:.2f} MB",
        str(row["calls_a_step"]),
        f"{row['output_error']:.1e}",
        f"{row['gradient_error']:.1e}",
        f"{row['plan_cpu_s']:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
