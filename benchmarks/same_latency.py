"""Accuracy at the same measured latency: ours (two ways), uniform, and by multiply-accumulates.

    python benchmarks/same_latency.py [--tasks fashion reviews] [--seeds 0 1 2] [--levels 50 30]

Every way gets the same scores (Taylor), the same latency, measured beside the dense model, and the
same recovery; what differs is how many units each group keeps. A line for each finished run is kept
in runs/same_latency.jsonl and not made again; the table is benchmarks/results/same_latency.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from same_latency_page import write_results
from same_latency_tasks import TASKS, Task
from torch import nn

import secateur as sc
from secateur.core.sensitivities import Sensitivities
from secateur.cost.latency import measure_latency
from secateur.search.adapt import Adapter, Judge, fitted_loss
from secateur.search.sensitivity import measure_sensitivities
from secateur.search.timing import Device
from secateur.select.constraints import Constraints

ROOT = Path(__file__).parents[1]
LINES = ROOT / "runs" / "same_latency.jsonl"
KEPT = ROOT / "runs" / "same_latency"
EPOCHS = {"fashion": 2, "reviews": 1}
FITTED = 8
"""Calibration batches that candidates are fitted on; the others and `held` judge them."""
ROUNDS, TRIES = 7, 5
WIDTHS = (1, 8, 16)
"""Ours make layers of any width and of multiples, timed by themselves, and take the better one."""
CLOSE = 0.03
"""A candidate may be so much below the latency that was asked for, relative, and nothing above."""


@dataclass(frozen=True)
class Pruning:
    """One seed's dense model with all that plans are made of."""

    task: Task
    graph: sc.Graph
    scores: Any
    costs: Mapping[int, sc.TimedCosts]
    sensitivities: Sensitivities
    judge: Judge


@dataclass(frozen=True)
class Candidate:
    """A plan, its model, and its measured share of the dense latency."""

    plan: sc.Plan
    model: nn.Module
    share: float


WAYS = ("uniform", "macs", "adapt", "knapsack", "uniform, aligned")
Maker = Callable[[float], sc.Plan]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--levels", type=int, nargs="+", default=[50, 30])
    parser.add_argument("--ways", nargs="+", default=WAYS[:-1], choices=WAYS)
    parser.add_argument("--split", default="test", choices=["test", "validation"])
    parser.add_argument("--write", action="store_true", help="only write the table anew")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if not given.write:
        for name in given.tasks:
            for level in given.levels:
                for seed in given.seeds:
                    run(name, seed, level, given)
    write_results(read())


def read() -> list[dict[str, Any]]:
    """The finished runs."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def run(name: str, seed: int, level: int, given: argparse.Namespace) -> None:
    """The ways that are missing of a task, a seed and a level."""
    split = given.split
    done = {tuple(line["key"]) for line in read()}
    epochs = EPOCHS[name]
    missing = [way for way in given.ways if (name, level, seed, way, epochs, split) not in done]
    if not missing:
        return
    task = TASKS[name](seed, epochs)
    pruning = prepare(task, KEPT / f"{name}-{seed}.json")
    dense = dense_accuracy(task, KEPT / f"{name}-{seed}-dense-{split}.json", split)
    for way in missing:
        found = best_within(pruning, way, level / 100)
        plan, small = found.plan, found.model
        cut = task.accuracy(small, split)
        started = time.thread_time()
        task.recover(small)
        line = {
            "key": [name, level, seed, way, epochs, split],
            "measured": found.share,
            "macs": plan.after.macs / plan.before.macs,
            "params": plan.after.params / plan.before.params,
            "price": pruning.sensitivities.price(kept_of(plan)),
            "kept": kept_of(plan),
            "dense": dense,
            "cut": cut,
            "accuracy": task.accuracy(small.eval(), split),
            "recovery_s": time.thread_time() - started,
        }
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def prepare(task: Task, place: Path) -> Pruning:
    """Scores, timings of the device, sensitivities; what is on disk is not measured again."""
    graph = sc.trace(task.dense, task.example)
    scores = sc.score(
        graph, task.dense, criterion="taylor", data=task.calibration, loss_fn=task.loss_fn
    )
    place.parent.mkdir(parents=True, exist_ok=True)
    found = measure_sensitivities(
        task.dense,
        graph,
        scores,
        data=task.held,
        loss_fn=task.loss_fn,
        depths=task.depths,
        recover=task.short,
        path=place,
    )
    device = Device(batch_size=task.batch_size, threads=1)
    with processor_time():
        costs = {
            width: sc.TimedCosts(
                graph,
                sc.time_device(
                    task.dense, graph, task.example, device=device, multiple_of=width, cache=KEPT
                ),
            )
            for width in WIDTHS
        }
    seen, held = task.calibration[:FITTED], [*task.held, *task.calibration[FITTED:]]
    judge = fitted_loss(task.dense, data=seen, held=held, loss_fn=task.loss_fn)
    return Pruning(task, graph, scores, costs, found, judge)


def dense_accuracy(task: Task, place: Path, split: str) -> float:
    """Of the dense model; kept, for all levels ask for it."""
    if not place.is_file():
        place.write_text(json.dumps(task.accuracy(task.dense, split)), encoding="utf-8")
    return float(json.loads(place.read_text(encoding="utf-8")))


def best_within(pruning: Pruning, way: str, share: float) -> Candidate:
    """The candidate that a way takes at a share of the dense latency.

    Each way has budgets to turn, of predicted milliseconds or of multiply-accumulates. Of several
    kinds of widths knapsack takes what the sensitivities price least, adapt what is judged best,
    aligned uniform what has the most MACs.
    """
    tried = [to_latency(pruning.task, make, share) for make in _makers(pruning, way)]
    found = [one for one in tried if one is not None]
    met = [one for one in found if one.share <= share] or found
    if way == "knapsack":
        return min(met, key=lambda one: pruning.sensitivities.price(kept_of(one.plan)))
    if way == "adapt" and len(met) > 1:
        return min(met, key=lambda one: pruning.judge(one.plan))
    return max(met, key=lambda one: one.plan.after.macs)


def to_latency(task: Task, make: Maker, share: float) -> Candidate | None:
    """What comes nearest to a share of the dense latency: the budget is turned until a measured
    candidate is within `CLOSE` below it, or there are `TRIES`. None where no plan is so quick."""
    low, high, budget = 0.0, 1.0, share
    found: list[tuple[float, Candidate]] = []
    for _ in range(TRIES):
        try:
            plan = make(budget)
        except sc.BudgetError:  # these widths cannot be so quick
            break
        small = sc.cut(task.dense, plan)
        one = Candidate(plan, small, measure(task, small))
        gap = one.share / share - 1.0
        found.append((abs(gap) if gap <= 0 else 10.0 + gap, one))
        if -CLOSE <= gap <= 0.0:
            break
        low, high = (low, budget) if gap > 0 else (budget, high)
        turned = budget / (1.0 + gap) * (1.0 - CLOSE / 2)
        budget = turned if low < turned < high else (max(low, 0.02) + high) / 2
    return min(found, key=lambda item: item[0])[1] if found else None


def _makers(pruning: Pruning, way: str) -> list[Maker]:
    """From a budget (a share) to a plan, for each kind of widths that a way tries."""
    graph, scores, options = pruning.graph, pruning.scores, pruning.task.options

    def by_macs(budget: float) -> sc.Plan:
        limit = f"macs={100 * budget:.3f}%"
        return sc.plan(graph, scores, budget=limit, selector="global", **options)

    def timed(width: int) -> Maker:
        ours = way == "knapsack"
        how = {"sensitivities": pruning.sensitivities} if ours else {}
        how |= {"selector": "knapsack" if ours else "uniform", "multiple_of": width, **options}

        def make(budget: float) -> sc.Plan:
            limit = f"latency={100 * budget:.3f}%"
            return sc.plan(graph, scores, budget=limit, costs=pruning.costs[width], **how)

        return make

    if way == "macs":
        return [by_macs]
    if way == "adapt":
        return [_trying(pruning, width) for width in pruning.task.widths]
    return [timed(width) for width in (WIDTHS if way != "uniform" else WIDTHS[:1])]


def _trying(pruning: Pruning, width: int) -> Maker:
    """Groups give way as trying says; what was tried for one budget is known for the next."""
    costs = pruning.costs[width]
    rules = Constraints(multiple_of=width, **pruning.task.options)
    adapter = Adapter(pruning.graph, pruning.scores, pruning.judge, rules)
    return lambda budget: adapter.plan(budget=f"latency={100 * budget:.3f}%", costs=costs)


def measure(task: Task, small: nn.Module) -> float:
    """Latency as a share of the dense model's, by turns, medians."""
    with processor_time():
        found = measure_latency(
            {"dense": task.dense, "small": small},
            task.example,
            batch_size=task.batch_size,
            threads=1,
            rounds=ROUNDS,
        )
    return found["small"].median_ms / found["dense"].median_ms


@contextmanager
def processor_time() -> Iterator[None]:
    """Clocks count what this thread computes, so that other work on the machine counts little; on
    an idle machine that is the latency of one thread."""
    before = time.perf_counter, time.perf_counter_ns
    time.perf_counter, time.perf_counter_ns = time.thread_time, time.thread_time_ns
    try:
        yield
    finally:
        time.perf_counter, time.perf_counter_ns = before


def kept_of(plan: sc.Plan) -> dict[str, int]:
    """Units kept, of the groups that lose any."""
    return {id: len(units) for id, units in plan.keep.items()}


if __name__ == "__main__":
    main()
