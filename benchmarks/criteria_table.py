"""Accuracy at a budget: criteria, Torch-Pruning's criteria and whole roads on Fashion-MNIST.

    python benchmarks/criteria_table.py [--seeds 0 1 2] [--macs 0.25 0.125] [--epochs 3] [--more]

Every row starts from the same trained models, cuts them to the same share of their MACs and trains
the same epochs on the same batches. A line for each finished run is kept in
runs/criteria_table.jsonl and not made again. Settings were chosen on the validation images of seed
0; the tables are of the test images. Needs `pip install --no-deps torch-pruning`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from criteria_table_page import Run, write_results
from criteria_table_ways import (
    ADAMW,
    DISTILLED,
    EXAMPLE,
    FITTED,
    FITTED_DISTILLED,
    GRADUAL,
    Remembering,
    Task,
    Way,
    ours,
    prepare,
    recover_,
    theirs,
)
from fashion import ROOT, fashion_data, test_batches, train_dense
from torch import nn

from secateur.cost.counted import cost
from secateur.graph import trace
from secateur.zoo.data import Data

LINES = ROOT / "runs" / "criteria_table.jsonl"
FIRST = tuple(
    replace(way, recipe=ADAMW)
    for way in (
        ours("output_error", "global", FITTED_DISTILLED),
        theirs("magnitude", "local"),
        ours("output_error", "adapt", FITTED_DISTILLED),
        ours("random", "uniform"),
        theirs("LAMP", "global"),
        theirs("Taylor", "local"),
        ours("output_error", "global"),
        theirs("magnitude", "local", DISTILLED),
        ours("random", "uniform", FITTED_DISTILLED),
    )
)
"""The rows of the recipe that does best on the validation images, the most telling first."""
MAIN = (
    ours("random", "uniform"),
    theirs("magnitude", "local"),
    ours("output_error", "global", FITTED_DISTILLED),
    theirs("LAMP", "global"),
    ours("output_error", "global"),
    theirs("Taylor", "local"),
    theirs("Hessian", "local"),
    theirs("magnitude", "global"),
    ours("taylor", "global"),
    theirs("magnitude", "local", DISTILLED),
    ours("random", "uniform", FITTED_DISTILLED),
    ours("output_error", "global", FITTED),
    ours("l2", "uniform"),
    theirs("FPGM", "local"),
    theirs("Taylor", "global"),
    ours("taylor", "global", FITTED_DISTILLED),
    ours("reconstruction", "global"),
    ours("geometric_median", "uniform"),
)
"""The rows of the other recipe, which `--sgd` makes."""
MORE = (
    *(
        ours(criterion, selection)
        for criterion in (
            *("l1", "l2", "linf", "geometric_median", "lamp", "norm_scale", "synflow"),
            *("taylor", "taylor_weight", "gradient", "fisher", "obd", "snip", "grasp", "movement"),
            *("activation_mean", "apoz", "wanda", "reconstruction", "output_error"),
        )
        for selection in ("uniform", "global")
    ),
    *(
        theirs(importance, selection)
        for importance in ("magnitude", "BN scale", "LAMP", "FPGM", "Taylor", "Hessian", "random")
        for selection in ("local", "global")
    ),
    ours("running_taylor", "global", GRADUAL),
)
"""Those that `--more` adds."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--macs", type=float, nargs="+", default=[0.25, 0.125])
    parser.add_argument("--epochs", type=int, default=3, help="of every row's recovery")
    parser.add_argument("--rows", help="only rows whose name holds this, for example distilled")
    parser.add_argument("--sgd", action="store_true", help="the other recipe in its place")
    parser.add_argument(
        "--more", action="store_true", help="and all criteria under both selections"
    )
    parser.add_argument("--write", action="store_true", help="only write the table anew")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = dict.fromkeys(MAIN if arguments.sgd or arguments.more else FIRST)
    rows |= dict.fromkeys(MORE if arguments.more else ())
    ways = [way for way in rows if (arguments.rows or "") in way.name]
    if not arguments.write:
        run_missing(ways, arguments.seeds, shares=arguments.macs, epochs=arguments.epochs)
    known = {way.name: way for way in (*FIRST, *MAIN, *MORE)}
    write_results([Run(known[line["key"][0]], line) for line in read() if line["key"][0] in known])


def run_missing(
    ways: Sequence[Way], seeds: Sequence[int], *, shares: Sequence[float], epochs: int
) -> None:
    """Make the runs that have no line yet; a row's seeds and budgets before the next row."""
    done, data = [line["key"] for line in read()], fashion_data()
    dense = {seed: train_dense(seed, data=data) for seed in seeds}
    answers = LINES.parent / "fashion"
    teachers = {s: Remembering(m, answers / f"answers-{s}.pt") for s, m in dense.items()}
    for way, seed, share in itertools.product(ways, seeds, shares):
        if [way.name, seed, share, epochs] not in done:
            line = run(way, Task(dense[seed], teachers[seed], data, seed, share, epochs))
            LINES.parent.mkdir(exist_ok=True)
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)
            teachers[seed].keep()


def read() -> list[dict[str, Any]]:
    """The finished runs."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def run(way: Way, task: Task) -> dict[str, Any]:
    """Cut and train once; what it came to."""
    started = time.process_time()
    model = prepare(way, task)
    cut_s = time.process_time() - started
    after_cut = measured(model, task.data, split="test")["accuracy"]
    started = time.process_time()
    recover_(model, way, task)
    recovery_s = time.process_time() - started
    before, after = (cost(trace(m, EXAMPLE)) for m in (task.dense, model))
    return {
        "key": [way.name, task.seed, task.macs, task.epochs],
        "macs": after.macs / before.macs,
        "params": after.params / before.params,
        "widths": [m.weight.shape[0] for m in model.modules() if isinstance(m, nn.Conv2d)],
        "dense": measured(task.dense, task.data, split="test"),
        "after_cut": after_cut,
        "validation": measured(model, task.data, split="validation"),
        "test": measured(model, task.data, split="test"),
        "cut_cpu_s": round(cut_s, 1),
        "recovery_cpu_s": round(recovery_s, 1),
    }


def measured(model: nn.Module, data: Data, *, split: str) -> dict[str, float]:
    """Accuracy in per cent, and cross-entropy, on one of the splits."""
    model.eval()
    right, loss, count = 0.0, 0.0, 0
    with torch.no_grad():
        for x, y in test_batches(data, split=split):
            logits = model(x)
            right += float((logits.argmax(1) == y).sum())
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            count += len(y)
    return {"accuracy": 100 * right / count, "loss": loss / count}


if __name__ == "__main__":
    main()
