"""Budgets of latency, asked for and measured: five models, two runtimes, two batches.

    PYTHONPATH=src:tests/zoo python benchmarks/latency_budgets.py [--models minilm ...]

Each model is timed once on this machine, then pruned to 70, 50 and 30 % of its measured latency by
L2 norm over even shares. Weights are random: the time does not depend on them. A line for each
finished case is kept in runs/latency_budgets.jsonl and not made again; the cheapest cases come
first. All 60 take some 40 minutes of one quiet core: what else runs there is in the measured times.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import nn

import secateur as sc
from secateur.core.atomic import write_text
from secateur.search.liked_widths import liked_width
from secateur.search.timing import Device
from secateur.search.within import Within

ROOT = Path(__file__).parents[1]
LINES = ROOT / "runs" / "latency_budgets.jsonl"
CACHE = ROOT / "runs" / "latency_cache"
RESULTS = ROOT / "benchmarks" / "results" / "latency_budgets"
DENSE_S = {
    "mobilenet_v3_large": 0.02,
    "efficientnet_lite0": 0.027,
    "minilm": 0.053,
    "resnet50": 0.145,
    "vit_b_16": 0.64,
}
"""Roughly the seconds of a dense forward at batch 1, by which cases are ordered."""
BLOCK_S = {"eager": 25, "onnxruntime": 100}
"""Roughly the seconds of three cases of a model whose forward takes no time: exports, mostly."""
FORWARDS = 45
"""Roughly the dense forwards that three cases take together."""
SHARES = (70, 50, 30)
BATCHES = (1, 16)
Block = tuple[str, str, int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(DENSE_S), choices=list(DENSE_S))
    parser.add_argument("--runtimes", nargs="+", default=list(BLOCK_S), choices=list(BLOCK_S))
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="only write the table anew")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = read()
    asked = itertools.product(arguments.models, arguments.runtimes, arguments.batches)
    left = {block: missing(block, lines) for block in sorted(asked, key=estimate_s)}
    left = {block: shares for block, shares in left.items() if shares and not arguments.write}
    print(f"about {sum(map(estimate_s, left)) / 60:.0f} minutes are left", file=sys.stderr)
    for (name, runtime, batch), shares in left.items():
        lines += run(name, Device(batch, arguments.threads, runtime), shares)
        write_results(lines)
    write_results(lines)


def estimate_s(block: Block) -> float:
    """Seconds that the cases of a model, runtime and batch take, roughly."""
    name, runtime, batch = block
    return BLOCK_S[runtime] + FORWARDS * DENSE_S[name] * batch


def missing(block: Block, lines: Sequence[Mapping[str, Any]]) -> list[int]:
    """The shares that have not been asked for yet."""
    known = [line["key"] for line in lines]
    return [share for share in SHARES if [*block, share] not in known]


def read() -> list[dict[str, Any]]:
    """The finished cases."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def run(name: str, device: Device, shares: Sequence[int]) -> list[dict[str, Any]]:
    """One model on one runtime and batch, at these shares of its latency."""
    model, inputs = build(name)
    graph = sc.trace(model, inputs)
    scores = sc.score(graph, model)
    started = time.perf_counter()
    width = liked_width(model, graph, inputs, device=device, cache=CACHE)
    timings = sc.time_device(model, graph, inputs, device=device, cache=CACHE, multiple_of=width)
    timed_s = time.perf_counter() - started
    made = []
    for share in shares:
        started = time.perf_counter()
        line: dict[str, Any] = {"key": [name, device.runtime, device.batch_size, share]}
        try:
            found = sc.plan_within(
                model, graph, scores, inputs, budget=f"latency={share}%", device=device, cache=CACHE
            )
            line |= {
                "measured": found.share,
                "first_predicted": first_prediction(graph, timings, found),
                "candidates": found.candidates,
                "dense_ms": found.dense.median_ms,
                "macs": found.plan.after.macs / found.plan.before.macs,
            }
        except sc.BudgetError as error:
            line["error"] = str(error)
        line |= {"seconds": time.perf_counter() - started, "timed_s": timed_s}
        line |= {"left_out_error": timings.error, "multiple_of": width}
        LINES.parent.mkdir(exist_ok=True)
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)
        made.append(line)
    return made


def first_prediction(graph: sc.Graph, timings: sc.Timings, found: Within) -> float:
    """What the plan that was taken was predicted to take before anything was measured of it."""
    latency = sc.TimedCosts(graph, timings)
    counts = found.plan.counts()
    dense, cut = latency.cost({}).latency_ms, latency.cost(counts).latency_ms
    assert dense is not None and cut is not None
    return cut / dense


def build(name: str) -> tuple[nn.Module, Any]:
    """A model with random weights in evaluation mode, and one example."""
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()  # on a CPU build of torch torchvision has none
    torch.manual_seed(0)
    image = torch.randn(1, 3, 224, 224)
    if name == "minilm":
        from transformers import BertConfig, BertModel

        config = BertConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            attn_implementation="sdpa",
        )
        ids = torch.randint(0, config.vocab_size, (1, 128))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        return BertModel(config).eval(), inputs
    if name == "efficientnet_lite0":
        import timm

        return timm.create_model(name).eval(), image
    import torchvision

    return torchvision.models.get_model(name).eval(), image


def write_results(lines: Sequence[Mapping[str, Any]]) -> None:
    """The JSON file and the table made of it."""
    about = environment(ROOT)
    body = {"about": about, "cases": list(lines)}
    write_text(RESULTS.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".md"), table(about, lines))


def table(about: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> str:
    """The whole page."""
    page = [
        "# Latency asked for and measured",
        "",
        "Generated by `python benchmarks/latency_budgets.py`; do not edit. A share of the dense "
        "model's latency is asked for; the cut model is measured beside the dense one in the same "
        "run, and *measured* is what the search saw of the candidate that it took. *Predicted* is "
        "what the timed modules alone say of that cut, uncorrected by any candidate; *candidates* "
        "were cut and measured until one was within the limit and at most 4 % below. *Widths* are "
        "multiples of 16 where the device likes them. *MACs* are what is left of them. Random "
        "weights, images of 224 pixels, 128 tokens; forwards that take seconds are judged by two "
        "or three rounds.",
        "",
        f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
        f"{about['torch']}, commit {about['commit']}, {about['date']}.",
        "",
        *summary(lines),
        "",
        "| model | runtime | batch | dense, ms | asked | measured | off | predicted | candidates "
        "| widths | MACs | seconds | timing the device, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(lines, key=lambda line: (*place_of(line), -line["key"][3]))
    return "\n".join([*page, *map(row, ordered)]) + "\n"


def place_of(line: Mapping[str, Any]) -> tuple[int, str, int]:
    """Cases stand by model, runtime and batch."""
    name, runtime, batch, _ = line["key"]
    return list(DENSE_S).index(name), runtime, batch


def summary(lines: Sequence[Mapping[str, Any]]) -> list[str]:
    """How near the cases came, those that failed and those that are missing counted too."""
    met = [line for line in lines if "measured" in line]
    if not met:
        return ["No case yet."]
    off = [abs(deviation(line)) for line in met]
    guessed = [abs(line["first_predicted"] / line["measured"] - 1) for line in met]
    absent = len(DENSE_S) * len(BLOCK_S) * len(BATCHES) * len(SHARES) - len(lines)
    said = [
        f"**Of {len(lines)} cases {sum(x <= 0.05 for x in off)} were measured within 5 % of the "
        f"target, {sum(x <= 0.1 for x in off)} within 10 %; {len(lines) - len(met)} could not be "
        f"met.** The prediction alone is off by {statistics.median(guessed):.1%} in the median, "
        f"by {max(guessed):.1%} at most."
    ]
    return said + ([f"{absent} cases have not been run."] if absent else [])


def deviation(line: Mapping[str, Any]) -> float:
    """By how much of the target a measured share is above it."""
    return float(line["measured"] * 100 / line["key"][3] - 1)


def row(line: Mapping[str, Any]) -> str:
    """One case."""
    name, runtime, batch, share = line["key"]
    head = f"| {name} | {runtime} | {batch} |"
    if "error" in line:
        return f"{head} | {share} % | {line['error'].split(';')[0]} | | | | | | | |"
    return (
        f"{head} {line['dense_ms']:.1f} | {share} % | {100 * line['measured']:.1f} % | "
        f"{deviation(line):+.1%} | {100 * line['first_predicted']:.1f} % | {line['candidates']} | "
        f"{line['multiple_of']} | {line['macs']:.0%} | {line['seconds']:.0f} | "
        f"{line['timed_s']:.0f} |"
    )


if __name__ == "__main__":
    main()
