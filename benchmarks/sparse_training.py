"""Unstructured, N:M and block masks on Fashion-MNIST: what they keep of the dense accuracy.

    python benchmarks/sparse_training.py [--seeds 0 1 2] [--only '90 %*' ...]

The dense models of `fashion.py` are masked and trained on; RigL and SET start from random weights.
Accuracies are of the 10,000 test images, with the weights of the last step, masks folded. Lines are
kept in `runs/sparse_training.jsonl` as they come, and trainings have checkpoints, so a run that was
stopped goes on where it was. Nothing was tuned on the test images.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from fashion import (
    RUNS,
    Augmented,
    fashion_data,
    fashion_net,
    settings,
    test_batches,
    train_dense,
)
from torch import nn

from secateur.masks import (
    DynamicSparsity,
    GradualMasking,
    erdos_renyi,
    fold_,
    mask_,
    sparsity,
)
from secateur.train import accuracy, finetune
from secateur.train.masking import Masking, MaskSchedule
from secateur.zoo.data import Data

HERE = Path(__file__).parent
ROOT = HERE.parent
LINES = ROOT / "runs" / "sparse_training.jsonl"
RESULTS = HERE / "results"
LR = 0.02
"""Highest learning rate of a recovery; dense training has 0.1."""


@dataclass(frozen=True)
class Way:
    """One way to a sparse model. start: from random weights or the dense model's. epochs: of
    training after that. begin: masks the model, and says what goes along with the training."""

    name: str
    epochs: int
    begin: Callable[[nn.Module, int, int], MaskSchedule | None]
    from_dense: bool = True
    lr: float = LR


def once(**how: Any) -> Callable[[nn.Module, int, int], None]:
    """Masks of one step, before the training."""

    def begin(model: nn.Module, steps: int, seed: int) -> None:
        mask_(model, seed=seed, **how)

    return begin


def gradual(share: float) -> Callable[[nn.Module, int, int], MaskSchedule]:
    """Cubic over the first half of the training, forty times."""

    def begin(model: nn.Module, steps: int, seed: int) -> MaskSchedule:
        half = steps // 2
        return GradualMasking(model, sparsity=share, stop=half, interval=max(1, half // 40))

    return begin


def dynamic(share: float, **how: Any) -> Callable[[nn.Module, int, int], MaskSchedule]:
    """Random masks by Erdos-Renyi-Kernel, moved over the first three quarters."""

    def begin(model: nn.Module, steps: int, seed: int) -> MaskSchedule:
        shares = erdos_renyi(model, sparsity=share)
        mask_(model, sparsity=shares, criterion="random", seed=seed)
        return DynamicSparsity(model, stop=steps * 3 // 4, interval=100, seed=seed, **how)

    return begin


def fixed(share: float) -> Callable[[nn.Module, int, int], None]:
    """The random masks alone."""

    def begin(model: nn.Module, steps: int, seed: int) -> None:
        shares = erdos_renyi(model, sparsity=share)
        mask_(model, sparsity=shares, criterion="random", seed=seed)

    return begin


def ways(recovery: int, scratch: int) -> tuple[Way, ...]:
    """All of them; epochs of recovery and of training from scratch."""
    return (
        Way("2:4, magnitude", recovery, once(pattern="2:4")),
        Way("90 %, iterative magnitude (cubic)", recovery, gradual(0.9)),
        Way("90 %, magnitude at once", recovery, once(sparsity=0.9)),
        Way("90 %, random masks at once", recovery, once(sparsity=0.9, criterion="random")),
        Way("90 %, RigL", scratch, dynamic(0.9), from_dense=False, lr=0.1),
        Way("95 %, iterative magnitude (cubic)", recovery, gradual(0.95)),
        Way("80 %, blocks of 4x1 at once", recovery, once(sparsity=0.8, pattern="block:4x1")),
        Way("90 %, SET", scratch, dynamic(0.9, **SET), from_dense=False, lr=0.1),
        Way("90 %, fixed random masks", scratch, fixed(0.9), from_dense=False, lr=0.1),
    )


SET = {"grow": "random", "decay": "constant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="*", default=["*"], help="glob patterns of ways")
    parser.add_argument("--recovery", type=int, default=4, help="epochs from the dense weights")
    parser.add_argument("--scratch", type=int, default=20, help="epochs from random weights")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    LINES.parent.mkdir(exist_ok=True)
    data = fashion_data()
    for way in ways(arguments.recovery, arguments.scratch):
        for seed in arguments.seeds:
            wanted = any(fnmatch.fnmatchcase(way.name, pattern) for pattern in arguments.only)
            if wanted and (way.name, way.epochs, seed) not in lines():
                line = run(way, seed, data)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                print(json.dumps(line), flush=True)
    write()


def run(way: Way, seed: int, data: Data) -> dict[str, Any]:
    """Mask, train, fold and measure."""
    dense = train_dense(seed, data=data)
    model = dense if way.from_dense else fashion_net(seed=seed)
    batches = Augmented(data, seed=seed)
    schedule = way.begin(model, way.epochs * len(batches), seed)
    started = time.process_time()
    name = "".join(letter if letter.isalnum() else "-" for letter in way.name)
    finetune(
        model,
        batches,
        settings=settings(way.epochs, lr=way.lr, seed=seed),
        loss_fn=F.cross_entropy,
        checkpoint_dir=RUNS / f"sparse-{name}-{way.epochs}-{seed}",
        companions=[Masking(schedule)] if schedule is not None else [],
    )
    fold_(model)
    rows = sparsity(model)
    return {
        "way": way.name,
        "epochs": way.epochs,
        "from_dense": way.from_dense,
        "seed": seed,
        "accuracy": accuracy(model, test_batches(data)),
        "sparsity": sum(row.zeros for row in rows) / sum(row.weights for row in rows),
        "layers": {row.name: round(row.sparsity, 4) for row in rows},
        "cpu_s": round(time.process_time() - started, 1),
    }


def lines() -> dict[tuple[str, int, int], dict[str, Any]]:
    """Finished runs by way, epochs and seed."""
    if not LINES.is_file():
        return {}
    read = [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]
    return {(line["way"], line["epochs"], line["seed"]): line for line in read}


def write() -> None:
    """The results of all finished runs."""
    about = {**environment(ROOT), "training": settings(1).decisive()}
    seeds = sorted({seed for *_, seed in lines()})
    dense = {seed: json.loads((RUNS / f"dense-{seed}.json").read_text()) for seed in seeds}
    body = {"about": about, "dense": dense, "runs": list(lines().values())}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "sparse_training.json").write_text(json.dumps(body, indent=1) + "\n")
    (RESULTS / "sparse_training.md").write_text(table(about, dense), encoding="utf-8")


def table(about: dict[str, Any], dense: dict[int, dict[str, Any]]) -> str:
    """The page."""
    rows = []
    for way, epochs in dict.fromkeys(key[:2] for key in lines()):
        found = {s: r for (w, e, s), r in lines().items() if (w, e) == (way, epochs)}
        points = [100 * r["accuracy"] for r in found.values()]
        drops = [100 * (dense[s]["accuracy"] - r["accuracy"]) for s, r in found.items()]
        share = statistics.mean(r["sparsity"] for r in found.values())
        start = "dense" if next(iter(found.values()))["from_dense"] else "random"
        rows.append(
            f"| {way} | {share:.1%} | {start} | {epochs} | {statistics.mean(points):.2f} | "
            f"{statistics.mean(drops):+.2f} | {max(drops):+.2f} | {len(found)} |"
        )
    means = ", ".join(f"{100 * d['accuracy']:.2f}" for d in dense.values())
    page = [
        "# Masks and accuracy on Fashion-MNIST",
        "",
        "Generated by `python benchmarks/sparse_training.py`; do not edit. The network of "
        "`fashion.py` (308,074 parameters); accuracy on the 10,000 test images in per cent, the "
        "mean over the seeds. *Lost* is what the same seed's dense model had more, in points. All "
        "train with SGD, a one-cycle learning rate and bfloat16 autocast; masks that start from "
        "the dense model are recovered in a few epochs, those that start "
        "from random weights take as many as it did.",
        "",
        f"Dense: {means} after {next(iter(dense.values()))['epochs']} epochs.",
        "",
        f"{about['cpu']}, {about['threads']} thread, torch {about['torch']}, commit "
        f"{about['commit']}, {about['date']}.",
        "",
        "| Masks | Zeros | Starts from | Epochs | Accuracy | Lost | Lost, worst seed | Seeds |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(page) + "\n"


if __name__ == "__main__":
    main()
