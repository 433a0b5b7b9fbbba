"""The same recipe on 1, 2 and 4 ranks, under DDP, FSDP2 and tensor parallelism: the same result?

    python benchmarks/engines_equal.py [--models cnn minilm smollm2] [--seeds 0 1 2] [--page]

Prunes by Taylor scores, masks half of what is left, and trains, as `secateur run` does it, once in
one process and once for each kind and number of ranks, all on one core. Lines are kept in
`runs/engines_equal.jsonl`, the last of each case counts; `--page` writes the page from them. With
`--seeds` the CNN is trained longer instead, once a seed in one process and once by four ranks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import yaml
from environment import child_environment, environment

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "engines_equal.jsonl"
NAMES = {
    "cnn": "CNN on Fashion-MNIST (trained)",
    "minilm": "MiniLM-L6 (random weights)",
    "smollm2": "SmolLM2's widths, 3 layers (random weights)",
}
DATA = {"cnn": "images", "minilm": "tokens", "smollm2": "tokens"}
CASES = (
    ("single", 1),
    ("ddp", 2),
    ("ddp", 4),
    ("fsdp", 2),
    ("fsdp", 4),
    ("tp", 2),
    ("tp", 4),
    ("ddp x tp", 4),
    ("fsdp x tp", 4),
)
SAID = {"ddp x tp": "ddp=2,tp=2", "fsdp x tp": "fsdp=2,tp=2"}
"""A kind as a recipe says it, where it is not its own word."""
RECOVER = {
    "cnn": {"epochs": 2, "steps_per_epoch": 20, "lr": 0.02, "weight_decay": 5e-4},
    "minilm": {"epochs": 2, "steps_per_epoch": 5, "lr": 0.02},
    "smollm2": {"epochs": 2, "steps_per_epoch": 5, "lr": 0.02},
}
TOLERANCE = {"cnn": 5e-3, "minilm": 1e-6, "smollm2": 1e-6}
"""Of the losses, relative to one process; the CNN's ReLU and batch norm carry rounding on."""
LONGER = {"epochs": 3, "steps_per_epoch": 60, "lr": 0.02, "weight_decay": 5e-4}
"""Of the CNN, where accuracies of seeds are compared."""
SEEDED = (("single", 1), ("ddp", 4))
BATCH = {"cnn": 128, "minilm": 32, "smollm2": 32}
Line = dict[str, Any]


def recipe(model: str, kind: str, ranks: int, out: Path, *, seed: int | None = None) -> Line:
    """What `secateur run` is given. seed: of a longer training."""
    settings: Line = {
        "model": f"engines_equal_models:{model}",
        "data": f"engines_equal_models:{DATA[model]}",
        "out": str(out),
        "batch_size": BATCH[model],
        "baseline": False,
        "stages": [
            {"prune": {"budget": "macs=50%", "criterion": "taylor", "calibration": 256}},
            {"mask": {"sparsity": 0.5, "criterion": "l1"}},
            {"recover": RECOVER[model] if seed is None else LONGER},
        ],
        "seed": seed or 0,
    }
    if ranks > 1:
        settings |= {"engine": "torchrun", "nproc": ranks, "parallel": SAID.get(kind, kind)}
    return settings


def run(model: str, kind: str, ranks: int, *, seed: int | None = None) -> Line:
    """One run, and what it left behind."""
    folder = Path(tempfile.mkdtemp(prefix="engines-equal-"))
    written = folder / "recipe.yaml"
    written.write_text(yaml.safe_dump(recipe(model, kind, ranks, folder / "run", seed=seed)))
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "secateur.cli", "run", str(written)],
        cwd=HERE,
        env=child_environment(),
        check=True,
        stdout=subprocess.DEVNULL,
    )
    seconds = time.monotonic() - started
    base = folder / "run"
    rows = [json.loads(row) for row in (base / "log.jsonl").read_text().splitlines()]
    result = json.loads((base / "result.json").read_text())
    line = {
        "model": model,
        "kind": kind,
        "ranks": ranks,
        "seed": seed,
        "plan": _sha(base / "stages" / "1-prune" / "plan.json"),
        "scores": _sha(base / "stages" / "1-prune" / "scores.safetensors"),
        "masks": _sha(base / "stages" / "2-mask" / "masks.safetensors"),
        "losses": [row["loss"] for row in rows],
        "metrics": [row["metric"] for row in rows],
        "accuracy": result["pruned"]["accuracy"],
        "train_s": round(sum(row["seconds"] for row in rows), 2),
        "wall_s": round(seconds, 1),
    }
    shutil.rmtree(folder)
    return line


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def page(lines: list[Line], about: Line) -> str:
    """The tables, one a model."""
    text = [
        "# The same recipe on several ranks",
        "",
        "Prune to half of the MACs by Taylor scores, mask half of what is left, train. Every number"
        " of ranks sees the same global batches. Plans, scores and masks are compared as files,"
        " byte by byte; losses are the means of each epoch. They are computed in float32, where"
        " rounding differs with the number of ranks and a training with ReLU carries it on; in"
        " float64 the tests hold every step to one part in 10^10.",
        "",
        f"{about['cpu']}, one core for all ranks, torch {about['torch']}; written at commit"
        f" {about['commit']}, {about['date']}, by `benchmarks/engines_equal.py`.",
    ]
    for model, name in NAMES.items():
        own = {
            (line["kind"], line["ranks"]): line
            for line in lines
            if line["model"] == model and line.get("seed") is None
        }
        if ("single", 1) not in own:
            continue
        one = own["single", 1]
        text += ["", f"## {name}", ""]
        text += [
            "| kind | ranks | scores | plan | masks | loss, last epoch"
            " | relative difference: first epoch | last epoch | accuracy |",
            "|---|---:|---|---|---|---:|---:|---:|---:|",
        ]
        for kind, ranks in CASES:
            if (line := own.get((kind, ranks))) is not None:
                text.append(_row(line, one))
        text += ["", _verdict(list(own.values()), one, TOLERANCE[model])]
    return "\n".join([*text, *_by_seed(lines)]) + "\n"


def _by_seed(lines: list[Line]) -> list[str]:
    """The accuracies of the seeds, in one process and in four."""
    own = {(line["kind"], line["seed"]): line for line in lines if line.get("seed") is not None}
    seeds = sorted(seed for kind, seed in own if kind == "single" and ("ddp", seed) in own)
    if not seeds:
        return []
    ones, fours = ([100 * own[kind, s]["accuracy"] for s in seeds] for kind, _ in SEEDED)
    text = [
        "",
        "## Accuracy over seeds",
        "",
        f"The CNN by the same recipe with a longer recovery ({LONGER['epochs']} epochs of"
        f" {LONGER['steps_per_epoch']} steps), on 2,000 test images. The seed orders the data.",
        "",
        "| seed | plan | one process | four ranks, DDP | difference, points |",
        "|---:|---|---:|---:|---:|",
    ]
    for seed, one, four in zip(seeds, ones, fours, strict=True):
        same = own["single", seed]["plan"] == own["ddp", seed]["plan"]
        plan = "equal" if same else "differs"
        text.append(f"| {seed} | {plan} | {one:.2f} % | {four:.2f} % | {four - one:+.2f} |")
    apart = mean(fours) - mean(ones)
    text.append(f"| mean | | {mean(ones):.2f} % | {mean(fours):.2f} % | {apart:+.2f} |")
    spread = f"{stdev(ones):.2f} | {stdev(fours):.2f}" if len(seeds) > 1 else "- | -"
    text.append(f"| standard deviation, points | | {spread} | |")
    return text


def _apart(line: Line, one: Line) -> list[float]:
    """The relative differences of the epochs' losses."""
    pairs = zip(line["losses"], one["losses"], strict=True)
    return [abs(own - other) / other for own, other in pairs]


def _verdict(lines: list[Line], one: Line, tolerance: float) -> str:
    """Whether all is as it is to be, in a sentence."""
    furthest = max(max(_apart(line, one)) for line in lines)
    word = "within" if furthest <= tolerance else "beyond"
    alike = all(line[key] == one[key] for line in lines for key in ("scores", "plan", "masks"))
    files = "byte-equal" if alike else "not all equal"
    points = 100 * max(abs(line["accuracy"] - one["accuracy"]) for line in lines)
    return (
        f"Scores, plans and masks {files}; losses {word} the tolerance of {tolerance:.0e} (at most"
        f" {furthest:.1e} apart); accuracies at most {points:.2f} points apart."
    )


def _row(line: Line, one: Line) -> str:
    same = ["equal" if line[key] == one[key] else "differ" for key in ("scores", "plan", "masks")]
    apart = [f"{number:.1e}" for number in _apart(line, one)]
    cells = [line["kind"], str(line["ranks"]), *same, f"{line['losses'][-1]:.6f}"]
    cells += [apart[0], apart[-1], f"{100 * line['accuracy']:.2f} %"]
    return f"| {' | '.join(cells)} |"


def _wanted(given: argparse.Namespace) -> Iterator[tuple[str, str, int, int | None]]:
    """Model, kind, ranks and seed of each run."""
    if given.seeds is not None:
        yield from (("cnn", *case, seed) for seed in given.seeds for case in SEEDED)
        return
    for model in given.models:
        for kind, ranks in CASES:
            if given.ranks in (None, ranks) and kind in (given.kinds or [kind]):
                yield model, kind, ranks, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(NAMES), choices=NAMES)
    parser.add_argument("--ranks", type=int, help="only this number of them")
    parser.add_argument("--seeds", nargs="+", type=int, help="longer trainings of the CNN")
    parser.add_argument("--kinds", nargs="+", help="only these of them")
    parser.add_argument("--page", action="store_true", help="only write the page")
    given = parser.parse_args()
    LINES.parent.mkdir(exist_ok=True)
    for model, kind, ranks, seed in [] if given.page else _wanted(given):
        line = run(model, kind, ranks, seed=seed)
        print(json.dumps(line), flush=True)
        with LINES.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    last = {}
    for row in LINES.read_text(encoding="utf-8").splitlines():
        line = json.loads(row)
        last[line["model"], line["kind"], line["ranks"], line.get("seed")] = line
    about, lines = environment(ROOT), list(last.values())
    body = json.dumps({"about": about, "lines": lines}, indent=1) + "\n"
    (HERE / "results" / "engines_equal.json").write_text(body, encoding="utf-8")
    (HERE / "results" / "engines_equal.md").write_text(page(lines, about), encoding="utf-8")


if __name__ == "__main__":
    main()
