"""A search for the front on Fashion-MNIST, two processes sharing it, beside the uniform line.

    python benchmarks/search_fashion.py [--trials 64] [--processes 2]

The residual network of `fashion.py` is pruned, fitted and recovered in many ways; every trial has
the same number of optimizer steps on a part of the training images. The line is uniform L2 pruning
with plain recovery at even shares of the MACs. The search sees validation images only; the models
of the front and of the line are then judged on the test images, and measured side by side. The
search lies in runs/search_fashion/ and goes on where it was stopped; with --write only the page and
the plot are made anew from what was judged.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from environment import child_environment, environment
from fashion import ROOT, Augmented, fashion_data, fashion_net, settings, test_batches, train_dense
from torch.utils.data import TensorDataset

from secateur.core.atomic import write_text
from secateur.cost.latency import measure_latency
from secateur.report.pareto_chart import front_chart
from secateur.report.standalone import standalone
from secateur.search.pareto import Goal, beaten, hypervolume
from secateur.search.study import Limits, search_front
from secateur.search.study_found import Found, read_found
from secateur.search.study_space import Space
from secateur.search.trial import Trial
from secateur.search.trial_task import Early, Task
from secateur.storage import load
from secateur.train import accuracy
from secateur.zoo.data import Data

FOLDER = ROOT / "runs" / "search_fashion"
JUDGED = FOLDER / "judged.json"
RESULTS = ROOT / "benchmarks" / "results" / "search"
IMAGES = 4_096
CALIBRATION = 4  # batches of 96, for criteria and the fit
VALIDATION = 3_000
BATCH = 64
SPACE = Space(shares=(0.06, 0.64), line=8)
TESTED = (Goal("accuracy", maximise=True), Goal("MACs"))
TIMED = (Goal("accuracy", maximise=True), Goal("latency"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--time-limit", type=float, help="seconds of this call")
    parser.add_argument("--write", action="store_true", help="only write the page anew")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.worker:
        work(Limits(arguments.trials, arguments.time_limit))
        return
    if not arguments.write:
        share(arguments.processes)
        judge(read_found(FOLDER))
    write_results(read_found(FOLDER), json.loads(JUDGED.read_text(encoding="utf-8")))


def share(processes: int) -> None:
    """Run so many processes of the same search, and wait for them."""
    train_dense(0)  # once, not in each of them
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    running = [subprocess.Popen(command, env=child_environment()) for _ in range(processes)]
    codes = [each.wait() for each in running]
    if any(codes):
        sys.exit("a process of the search failed; the same command goes on where it stopped")


def work(limits: Limits) -> None:
    """One process of the search."""
    search_front(task(fashion_data()), FOLDER, space=SPACE, limits=limits, on_trial=told)


def task(data: Data) -> Task:
    """The model, and one short epoch of recovery for every trial."""
    x, y = data.train.tensors
    some = replace(data, train=TensorDataset(x[:IMAGES], y[:IMAGES]))
    seen = list(test_batches(data, split="validation"))[: VALIDATION // 500]
    return Task(
        model=train_dense(0, data=data),
        example_inputs=x[:1],
        train_data=Augmented(some),
        validate=partial(accuracy, data=seen),
        recovery=settings(1, lr=0.02),
        loss_fn=F.cross_entropy,
        calibration=list(test_batches(some, split="train", batch_size=96))[:CALIBRATION],
        costs=("macs",),
        early=Early(part=0.6, margin=0.03),
    )


def told(trial: Trial, found: Found) -> None:
    metric = "" if trial.metric is None else f"{trial.metric:.4f}"
    macs = f"{trial.costs.get('macs', 1.0):.1%}"
    line = (os.getpid(), trial.number, trial.state, macs, metric, trial.choice.words, trial.reason)
    print(*line, f"[front {len(found.front)}]", flush=True)


def judge(found: Found) -> None:
    """Test accuracy, and latency side by side, of the front, the line and the dense model."""
    data = fashion_data()
    dense = train_dense(0, data=data)
    numbers = sorted({trial.number for trial in (*found.front, *found.line)})
    models = {
        str(number): load(found.folder.model(number), fashion_net).to(
            memory_format=torch.channels_last
        )
        for number in numbers
    }
    models["dense"] = dense
    images = data.test.tensors[0][:BATCH]
    latencies = measure_latency(models, images, threads=1, rounds=21)
    judged = {
        name: {
            "test": accuracy(model, test_batches(data)),
            "latency_ms": latencies[name].median_ms,
        }
        for name, model in models.items()
    }
    body = {"about": environment(ROOT), "judged": judged}
    write_text(JUDGED, json.dumps(body, indent=1) + "\n")


def write_results(found: Found, judged: Mapping[str, Any]) -> None:
    """JSON, CSV, plot and page."""
    body = {**judged, "images": IMAGES, "found": found.to_json()}
    write_text(RESULTS.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".csv"), found.to_csv())
    write_text(RESULTS.with_suffix(".svg"), standalone(front_chart(found, "macs")))
    write_text(RESULTS.with_suffix(".md"), page(found, judged))


def page(found: Found, judged: Mapping[str, Any]) -> str:
    """The whole page."""
    about, figures = judged["about"], judged["judged"]
    dense = figures["dense"]
    rows = [row(trial, figures) for trial in found.front]
    line = [row(trial, figures) for trial in sorted(found.line, key=lambda t: -t.costs["macs"])]
    head = "| trial | MACs left | validation | test | latency | how |\n|---|---|---|---|---|---|\n"
    return "\n".join(
        [
            "# A search for the front",
            "",
            "Generated by `python benchmarks/search_fashion.py`; do not edit. The residual network "
            "of `benchmarks/fashion.py` (308,074 parameters, 10.3 million MACs). Every trial cuts "
            f"it and recovers it in one epoch of {IMAGES:,} training images; the search chooses "
            "the share of MACs, criterion, selector, one shot or three steps, learning rate, "
            "distillation and the fit of the weights. The line is uniform L2 with plain recovery, "
            f"the same images, steps and schedule. The search sees {VALIDATION:,} validation "
            "images; the test images were looked at once, when it was over. Latency is measured "
            f"side by side in one run, batch {BATCH}, eager, 1 thread, as a share of the dense "
            f"model's {dense['latency_ms']:.1f} ms.",
            "",
            f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
            f"{about['torch']}, commit {about['commit']}, {about['date']}.",
            "",
            "![Front and line](search.svg)",
            "",
            *verdicts(found, figures),
            "",
            f"Dense: validation {found.dense:.2%}, test {dense['test']:.2%}. {found.summary}, "
            "shared by two processes.",
            "",
            "## The front",
            "",
            head + "\n".join(rows),
            "",
            "## The line",
            "",
            head + "\n".join(line),
            "",
        ]
    )


def verdicts(found: Found, figures: Mapping[str, Any]) -> list[str]:
    """What may be said of front and line."""
    line, front = found.line, found.front
    names = ("validation accuracy and MACs", "test accuracy and MACs", "test accuracy and latency")
    ways = (
        (found.goals, lambda t: t.point),
        (TESTED, lambda t: (figures[str(t.number)]["test"], t.costs["macs"])),
        (TIMED, lambda t: (figures[str(t.number)]["test"], share_of_time(t, figures))),
    )
    said = [f"The front has **{len(front)} points**, {len(found.found)} of them off the line."]
    for name, (goals, point) in zip(names, ways, strict=True):
        points, others = [point(t) for t in front], [point(t) for t in line]
        count = len(beaten(others, by=points, goals=goals))
        volumes = [hypervolume(each, (0.8, 1.0), goals) for each in (points, others)]
        said.append(
            f"By {name} it beats {count} of the line's {len(line)} points; hypervolume (beside "
            f"80 % at the dense cost) {volumes[0]:.4f}, the line's {volumes[1]:.4f}."
        )
    return ["- " + each for each in said]


def share_of_time(trial: Trial, figures: Mapping[str, Any]) -> float:
    dense: float = figures["dense"]["latency_ms"]
    return float(figures[str(trial.number)]["latency_ms"]) / dense


def row(trial: Trial, figures: Mapping[str, Any]) -> str:
    assert trial.metric is not None
    cells: Sequence[str] = (
        str(trial.number),
        f"{trial.costs['macs']:.1%}",
        f"{trial.metric:.2%}",
        f"{figures[str(trial.number)]['test']:.2%}",
        f"{share_of_time(trial, figures):.1%}",
        trial.choice.words + (" (the line)" if trial.line else ""),
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
