"""What the engine costs: a step of `finetune` beside a plain torch loop, alone and on two ranks.

    python benchmarks/engine.py [--page]
    python benchmarks/engine.py --throughput      # two processes on two cores against one

Costs are processor seconds of a step, medians over steps that the two loops take in turns, so that
what else the machine does is not measured. The throughput is measured by the clock, on idle cores.
Lines are kept in `runs/engine.jsonl`, the last of each kind counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import child_environment, environment
from fashion import fashion_net
from torch import Tensor, nn

from secateur.masks import mask_
from secateur.train import Callbacks, FinetuneSettings, TensorBatches, finetune

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "engine.jsonl"
BATCH, STEPS, ROUNDS, WARM = 128, 7, 5, 2
LR = 0.01
Clock = Callable[[], float]
Line = dict[str, Any]


def rows(batches: int) -> tuple[Tensor, Tensor]:
    """Images of random numbers: what a step costs does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batches * BATCH, 1, 28, 28, generator=generator)
    return x, torch.randint(0, 10, (len(x),), generator=generator)


def net(*, masked: bool = False) -> nn.Module:
    model = fashion_net()
    if masked:
        mask_(model, sparsity=0.5)
    return model


def plain(model: nn.Module, clock: Clock, *, rank: int = 0, size: int = 1) -> list[float]:
    """Seconds of each step of a loop as it is usually written."""
    data = TensorBatches(*rows(STEPS), batch_size=BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)
    model.train()
    own = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    seconds = []
    started = clock()
    for x, y in data:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x[own]), y[own])
        loss.item()
        loss.backward()
        optimizer.step()
        now = clock()
        seconds.append(now - started)
        started = now
    return seconds[WARM:]


def ours(model: nn.Module, clock: Clock, **how: Any) -> list[float]:
    """Seconds of each step of `finetune`."""
    at = [0.0]
    seconds: list[float] = []

    def on_step(step: int, loss: float) -> None:
        now = clock()
        seconds.append(now - at[0])
        at[0] = now

    settings = FinetuneSettings(epochs=1, lr=LR, schedule="constant", progress=False)
    data = TensorBatches(*rows(STEPS), batch_size=BATCH)
    callbacks = Callbacks(on_step=on_step)
    finetune(model, data, settings=settings, loss_fn=F.cross_entropy, callbacks=callbacks, **how)
    return seconds[WARM:]  # the first of them has the start in it


def in_turns(loops: dict[str, Callable[[], list[float]]]) -> dict[str, float]:
    """Milliseconds of a step, the median of all."""
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for _ in range(ROUNDS):
        for name, loop in loops.items():
            seconds[name] += loop()
    return {name: 1000 * statistics.median(values) for name, values in seconds.items()}


def alone() -> Line:
    clock = time.process_time
    return in_turns(
        {
            "plain": lambda: plain(net(), clock),
            "finetune": lambda: ours(net(), clock),
            "plain, masked": lambda: plain(net(masked=True), clock),
            "finetune, masked": lambda: ours(net(masked=True), clock),
        }
    )


def on_rank() -> None:
    """One of the ranks; rank 0 prints what it found."""
    from torch.nn.parallel import DistributedDataParallel

    from secateur.engines.joining import joined, ranks_of
    from secateur.engines.parallel import ddp, fsdp

    torch.set_num_threads(1)
    ranks = ranks_of(os.environ)
    assert ranks is not None
    clock = time.monotonic if os.environ["BENCHMARK_CLOCK"] == "wall" else time.process_time
    with joined(ranks, timeout_s=300) as world:
        split = {"rank": world.rank, "size": world.size}
        found = in_turns(
            {
                "DDP, plain": lambda: plain(DistributedDataParallel(net()), clock, **split),
                "ddp, own batch norm": lambda: ours(
                    net(), clock, parallel=ddp.make(world, sync_batch_norm=False)
                ),
                "ddp": lambda: ours(net(), clock, parallel=ddp.make(world)),
                "fsdp": lambda: ours(net(), clock, parallel=fsdp.make(world)),
            }
        )
        both = world.gather(found, what="the figures")
        if world.rank == 0:
            mean = {name: statistics.mean(own[name] for own in both) for name in found}
            print("FOUND " + json.dumps(mean), flush=True)


def on_ranks(count: int, clock: str) -> Line:
    program = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program += ["--nproc-per-node", str(count), str(HERE / "engine.py"), "--rank"]
    surroundings = {**child_environment(), "BENCHMARK_CLOCK": clock}
    done = subprocess.run(program, env=surroundings, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if not told:
        sys.exit(done.stderr[-2000:])
    found: Line = json.loads(told[0].removeprefix("FOUND "))
    return found


def throughput() -> Line:
    """By the clock, on idle cores: one process with one thread, and two on two cores."""
    clock = time.monotonic
    one = in_turns({"plain": lambda: plain(net(), clock), "finetune": lambda: ours(net(), clock)})
    return {"one": one, "two": on_ranks(2, "wall")}


def imports() -> Line:
    """Processor seconds of importing torch, and secateur with it; medians of three."""

    def seconds(module: str) -> float:
        code = (
            f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
        )
        runs = [
            subprocess.run(
                [sys.executable, "-c", code],
                env=child_environment(),
                capture_output=True,
                text=True,
            ).stdout
            for _ in range(3)
        ]
        return statistics.median(float(run) for run in runs)

    return {"torch": seconds("torch"), "secateur": seconds("secateur")}


def page(lines: dict[str, Line]) -> str:
    costs = lines["costs"]
    alone, two, imported = costs["alone"], costs["two"], costs["imports"]
    about = costs["about"]
    text = [
        "# What the engine costs",
        "",
        f"The CNN of `fashion.py`, batches of {BATCH}, float32, one thread a process."
        f" {about['cpu']}, torch {about['torch']}, commit {about['commit']}, {about['date']}."
        " Generated by `benchmarks/engine.py`.",
        "",
        "## In one process, processor milliseconds of a step",
        "",
        "| loop | ms | against the plain loop |",
        "|---|---:|---:|",
        *(_row(name, alone[name], alone["plain"]) for name in alone),
        "",
        "## On two ranks, processor milliseconds of a step and rank",
        "",
        "Every rank computes half of the batch. `ddp` and `fsdp` take the statistics of batch norm"
        " over the whole batch, which torch cannot do on a CPU; that is what they cost more.",
        "",
        "| loop | ms | against torch's DDP |",
        "|---|---:|---:|",
        *(_row(name, two[name], two["DDP, plain"]) for name in two),
        "",
        "## Import",
        "",
        f"`import torch` takes {imported['torch']:.2f} s of processor time, `import secateur` with"
        f" it {imported['secateur']:.2f} s.",
    ]
    if "throughput" in lines:
        found = lines["throughput"]
        one, both = found["one"]["finetune"], found["two"]
        text += ["", "## Two processes on two cores, by the clock", ""]
        text += ["| | ms of a step | times as fast | efficiency |", "|---|---:|---:|---:|"]
        text += [f"| one process, one thread | {one:.1f} | 1.00 | |"]
        for name, ms in both.items():
            text.append(f"| {name} | {ms:.1f} | {one / ms:.2f} | {100 * one / ms / 2:.0f} % |")
    return "\n".join(text) + "\n"


def _row(name: str, ms: float, plain: float) -> str:
    return f"| {name} | {ms:.1f} | {100 * (ms / plain - 1):+.1f} % |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for flag in ("--rank", "--throughput", "--page"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    if given.rank:
        on_rank()
        return
    torch.set_num_threads(1)
    LINES.parent.mkdir(exist_ok=True)
    if not given.page:
        if given.throughput:
            line = {"kind": "throughput", **throughput()}
        else:
            two = on_ranks(2, "processor")
            line = {"kind": "costs", "alone": alone(), "two": two, "imports": imports()}
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "about": environment(ROOT)}) + "\n")
    lines = {}
    for row in LINES.read_text(encoding="utf-8").splitlines():
        body = json.loads(row)
        lines[body["kind"]] = body
    (HERE / "results" / "engine.json").write_text(json.dumps(lines, indent=1) + "\n")
    if "costs" in lines:
        (HERE / "results" / "engine.md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
