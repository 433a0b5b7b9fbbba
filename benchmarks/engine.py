"""What the engine and its masks cost: a step of `finetune` beside a step as it is usually written.

    python benchmarks/engine.py [--page]
    python benchmarks/engine.py --throughput      # two processes on two idle cores, four minutes

Costs are processor time, of loops that take turns step by step on one core. What else the machine
does, and where memory happens to lie, disturbs a step by several per cent; what the engine and the
masks add does not depend on the batch, so it is measured with a batch of a few rows, as the
difference in milliseconds, and stated as a share of a step of usual size.
Lines are kept in `runs/engine.jsonl`, the last of each kind counts.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from engine_loops import PEERS, TASKS, Task, alone, together
from engine_page import ADDED, RATES, page
from engine_turns import Loop, Step, added, in_turns, median_ms
from environment import child_environment, environment

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "engine.jsonl"
SMALL = {"cnn": 4, "minilm": 2}
"""Rows of a batch that takes little time."""
WARM, ROUNDS, FEW = 4, 60, 8
REPEATS = {"cnn": (4, 25), "minilm": (2, 10)}
"""By the clock: how often a loop is made anew, and the steps each time."""
Line = dict[str, Any]
Loops = Callable[[Task], Mapping[str, Loop]]
KEEP = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
}
"""For costs: the allocator keeps its pages, so that none of the loops pays for the others'."""


def costs(loops: Loops, name: str) -> Line:
    """Of each loop: milliseconds that it adds to a step of its peer, and steps of usual size."""
    make, rows = TASKS[name]
    small = in_turns(loops(Task(make, SMALL[name], WARM + ROUNDS)), warm=WARM)
    large = in_turns(loops(Task(make, rows, WARM + FEW)), warm=WARM)
    found: Line = {}
    for loop, steps in small.items():
        found[loop] = {"ms": median_ms(large[loop], "process_s")}
        peer = PEERS.get(loop)
        if peer is not None:
            found[loop]["added_ms"], found[loop]["spread_ms"] = added(steps, small[peer])
            found[loop]["large_ms"], found[loop]["large_spread_ms"] = added(
                large[loop], large[peer]
            )
    return found


def rates(loops: Loops, name: str) -> Line:
    """Of each loop, by the clock: milliseconds of a step, and those of them in which this rank's
    thread did not compute: it waited for messages and for the other rank."""
    make, rows = TASKS[name]
    times, count = REPEATS[name]
    found: dict[str, list[Step]] = {}
    for _ in range(times):  # memory lies elsewhere each time
        for loop, steps in in_turns(loops(Task(make, rows, WARM + count)), warm=WARM).items():
            found.setdefault(loop, []).extend(steps)
    return {
        loop: {
            "ms": median_ms(steps, "wall_s"),
            "waits_ms": 1000 * statistics.median(step.wall_s - step.own_s for step in steps),
        }
        for loop, steps in found.items()
    }


def without_masks(task: Task) -> dict[str, Loop]:
    """The loops of one process that two are compared with."""
    return {name: loop for name, loop in alone(task).items() if name in ("plain", "finetune")}


def on_rank(what: str) -> None:
    """One process, or one of the ranks; the first prints what was found, the mean of all."""
    from secateur.engines.joining import joined, ranks_of

    torch.set_num_threads(1)
    measure = costs if what == ADDED else rates
    if what == ADDED and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    ranks = ranks_of(os.environ)
    if ranks is None:
        loops = alone if what == ADDED else without_masks
        print("FOUND " + json.dumps({name: measure(loops, name) for name in TASKS}), flush=True)
        return
    with joined(ranks, timeout_s=300) as world:
        found = {name: measure(lambda task: together(task, world), name) for name in TASKS}
        both = world.gather(found, what="the figures")
        if world.rank == 0:
            print("FOUND " + json.dumps(_mean(both)), flush=True)


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], Mapping):
        return {key: _mean([value[key] for value in values]) for key in values[0]}
    return statistics.mean(values)


def started(count: int, what: str) -> Line:
    """What processes of this file find."""
    program = [sys.executable, "-W", "ignore"]
    if count > 1:
        program += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    program += [str(HERE / "engine.py"), "--rank", what]
    surroundings = {**child_environment(), **(KEEP if what == ADDED else {})}
    done = subprocess.run(program, env=surroundings, capture_output=True, text=True)
    told = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    if not told:
        sys.exit(done.stderr[-2000:])
    found: Line = json.loads(told[0].removeprefix("FOUND "))
    return found


def imports() -> Line:
    """Processor seconds of importing torch, and secateur with it; medians of three."""

    def seconds(module: str) -> float:
        code = (
            f"import time; t = time.process_time(); import {module}; print(time.process_time() - t)"
        )
        command = [sys.executable, "-c", code]
        runs = [
            subprocess.run(command, env=child_environment(), capture_output=True, text=True).stdout
            for _ in range(3)
        ]
        return statistics.median(float(run) for run in runs)

    return {"torch": seconds("torch"), "secateur": seconds("secateur")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", choices=(ADDED, RATES))
    for flag in ("--throughput", "--page"):
        parser.add_argument(flag, action="store_true")
    given = parser.parse_args()
    if given.rank:
        on_rank(given.rank)
        return
    LINES.parent.mkdir(exist_ok=True)
    if not given.page:
        kind = RATES if given.throughput else ADDED
        line = {"kind": kind, "one": started(1, kind), "two": started(2, kind)}
        if kind == ADDED:
            line["imports"] = imports()
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "about": environment(ROOT)}) + "\n")
    lines = {}
    for row in LINES.read_text(encoding="utf-8").splitlines():
        body = json.loads(row)
        if body["kind"] in (ADDED, RATES):
            lines[body["kind"]] = body
    (HERE / "results" / "engine.json").write_text(json.dumps(lines, indent=1) + "\n")
    (HERE / "results" / "engine.md").write_text(page(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
