"""Budgets of latency, asked for and measured: five models, two runtimes, two batches.

    python benchmarks/latency_budgets.py [--models resnet50 ...] [--runtimes eager] [--batches 1]

Each model is timed once on this machine, then pruned to 70, 50 and 30 % of its measured latency by
L2 norm over even shares. Weights are random: the time does not depend on them. A line for each
finished case is kept in runs/latency_budgets.jsonl and not made again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import nn

import secateur as sc
from secateur.core.atomic import write_text
from secateur.search.timing import Device
from secateur.search.within import Within

ROOT = Path(__file__).parents[1]
LINES = ROOT / "runs" / "latency_budgets.jsonl"
CACHE = ROOT / "runs" / "latency_cache"
RESULTS = ROOT / "benchmarks" / "results" / "latency_budgets"
MODELS = ("resnet50", "mobilenet_v3_large", "efficientnet_lite0", "vit_b_16", "minilm")
SHARES = (70, 50, 30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=["eager", "onnxruntime"])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="only write the table anew")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    lines = read()
    for batch in () if arguments.write else arguments.batches:
        for runtime in arguments.runtimes:
            for name in arguments.models:
                device = Device(batch, arguments.threads, runtime)
                known = [line["key"] for line in lines]
                missing = [s for s in SHARES if [name, runtime, batch, s] not in known]
                lines += run(name, device, missing) if missing else []
    write_results(lines)


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
    timings = sc.time_device(model, graph, inputs, device=device, cache=CACHE)
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
        line["left_out_error"] = timings.error
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
    met = [line for line in lines if "measured" in line]
    off = [abs(line["measured"] * 100 / line["key"][3] - 1) for line in met]
    guessed = [abs(line["first_predicted"] / line["measured"] - 1) for line in met]
    page = [
        "# Latency asked for and measured",
        "",
        "Generated by `python benchmarks/latency_budgets.py`; do not edit. A share of the dense "
        "model's latency is asked for; the cut model is measured beside the dense one in the same "
        "run. *Predicted* is what the timed modules alone said of the final cut, before any "
        "candidate was measured; *candidates* were cut and measured until one was within the limit "
        "and at most 4 % below. MACs are what is left of them. Batch and runtime as stated, random "
        "weights, images of 224 pixels, 128 tokens.",
        "",
        f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
        f"{about['torch']}, commit {about['commit']}, {about['date']}.",
        "",
        f"**{len(met)} of {len(lines)} cases could be met; {sum(x <= 0.05 for x in off)} of them "
        f"within 5 % of the target, {sum(x <= 0.1 for x in off)} within 10 %.** "
        f"The prediction alone is off by {statistics.median(guessed):.1%} in the median."
        if met
        else "No case yet.",
        "",
        "| model | runtime | batch | dense, ms | asked | measured | predicted | candidates | MACs "
        "| seconds | timing the device, s |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*page, *map(row, lines)]) + "\n"


def row(line: Mapping[str, Any]) -> str:
    """One case."""
    name, runtime, batch, share = line["key"]
    head = f"| {name} | {runtime} | {batch} |"
    if "error" in line:
        return f"{head} | {share} % | {line['error'].split(';')[0]} | | | | | |"
    return (
        f"{head} {line['dense_ms']:.1f} | {share} % | {100 * line['measured']:.1f} % | "
        f"{100 * line['first_predicted']:.1f} % | {line['candidates']} | {line['macs']:.0%} | "
        f"{line['seconds']:.0f} | {line['timed_s']:.0f} |"
    )


if __name__ == "__main__":
    main()
