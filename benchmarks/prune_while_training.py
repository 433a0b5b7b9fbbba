"""What pruning while training saves: Fashion-MNIST, the same epochs for all.

    python benchmarks/prune_while_training.py [--seeds 0 1 2] [--epochs 8]

Dense training; the same training while the model is cut to a share of its MACs, by the training's
own gradients; and the same with units chosen at random. MACs are counted over the whole training,
seconds are processor seconds of one thread of the training alone. A line for each finished run is
kept in runs/prune_while_training.jsonl and not made again; a run that was killed goes on from its
last epoch, with the seconds that it had taken till then. The shapes were chosen by the times of
single steps, before any accuracy at this width was seen.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from fashion import ROOT, Augmented, fashion_data, fashion_net, settings, test_batches
from prune_while_training_page import Lines, page

from secateur.core.atomic import write_text
from secateur.train import (
    Companion,
    GradualSettings,
    Training,
    accuracy,
    finetune,
    prune_while_training,
)
from secateur.zoo.data import Data

LINES = ROOT / "runs" / "prune_while_training.jsonl"
CHECKPOINTS = ROOT / "runs" / "prune_while_training"
RESULTS = ROOT / "benchmarks" / "results" / "prune_while_training"
RAPL = Path("/sys/class/powercap/intel-rapl:0/energy_uj")
WATTS = 10.0  # stated, not measured: what one busy core of a server processor is taken to draw
WIDTH = 64  # twice that of the other benchmarks: only here do convolutions take most of a step
PRUNING: dict[str, Any] = {
    "budget": "macs=44%",
    "cuts": 4,
    "begin": 0.02,
    "end": 0.15,
    "options": {
        # a step's time falls as its MACs do only at widths that the bfloat16 kernels like; no less
        # than half of the first layers, at whose resolution most time is spent, and three
        # quarters of the others
        "multiple_of": 16,
        "keep": {"stem": 0.5, "blocks.0": 0.5, "blocks.1": 0.75, "blocks.2": 0.75},
    },
}
WAYS: Mapping[str, GradualSettings | None] = {
    "dense": None,
    "pruned while training": GradualSettings(**PRUNING),
    "random units": GradualSettings(**PRUNING, criterion="random"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines, data = read(), None
    for seed in arguments.seeds:
        for way in arguments.ways:
            key = [way, seed, arguments.epochs, WIDTH, described(WAYS[way])]
            if not any(line["key"] == key for line in lines):
                data = data or fashion_data()
                line = {"key": key, **run(way, seed, data, arguments.epochs)}
                LINES.parent.mkdir(exist_ok=True)
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                lines.append(line)
                print(json.dumps(line), flush=True)
    kept = [
        line
        for line in lines
        if line["key"][2:] == [arguments.epochs, WIDTH, described(WAYS[line["way"]])]
    ]
    write_results(kept, [line for line in lines if line not in kept], arguments.epochs)


def read() -> list[dict[str, Any]]:
    """The finished runs."""
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def described(pruning: GradualSettings | None) -> str:
    """The settings, so that a line made under others does not count."""
    return repr(pruning)


class Clock(Companion):
    """Processor and wall seconds, and joules, of a training that may have been interrupted."""

    def begin_(self, training: Training) -> None:
        self.before = (0.0, 0.0, 0.0)
        self.started = now()

    def spent(self) -> tuple[float, ...]:
        """So far."""
        return tuple(b + n - s for b, n, s in zip(self.before, now(), self.started, strict=True))

    def state(self) -> list[float]:
        return list(self.spent())

    def load_state_(self, state: list[float], training: Training) -> None:
        self.before, self.started = tuple(state), now()


def now() -> tuple[float, float, float]:
    """Processor seconds, wall seconds, joules."""
    return time.process_time(), time.perf_counter(), (energy_uj() or 0) / 1e6


def run(way: str, seed: int, data: Data, epochs: int) -> dict[str, Any]:
    """Train once; what it came to."""
    model, pruning, clock = fashion_net(WIDTH, seed=seed), WAYS[way], Clock()
    batches, how = Augmented(data, seed=seed), settings(epochs, seed=seed)
    named = f"{way} {seed} {epochs} {WIDTH} {pruning}"
    folder = CHECKPOINTS / hashlib.sha256(named.encode()).hexdigest()[:8]
    share, overhead = 1.0, None
    if pruning is None:
        finetune(
            model,
            batches,
            settings=how,
            loss_fn=F.cross_entropy,
            checkpoint_dir=folder,
            companions=(clock,),
        )
    else:
        shrunk = prune_while_training(
            model,
            batches,
            example_inputs=torch.zeros(1, 1, 28, 28),
            pruning=pruning,
            settings=how,
            loss_fn=F.cross_entropy,
            checkpoint_dir=folder,
            companions=(clock,),
        )
        share, overhead = shrunk.cuts.macs_spent / shrunk.cuts.macs_dense, shrunk.cuts.overhead_s
    seconds, wall, joules = clock.spent()
    return {
        "way": way,
        "seed": seed,
        "epochs": epochs,
        "accuracy": accuracy(model, test_batches(data)),
        "validation": accuracy(model, test_batches(data, split="validation")),
        "params": sum(p.numel() for p in model.parameters()),
        "macs_share": share,
        "cpu_s": round(seconds, 2),
        "wall_s": round(wall, 2),
        "energy_j": None if energy_uj() is None else joules,
        "overhead_s": overhead,
    }


def energy_uj() -> int | None:
    """The processor's own energy counter, None where it cannot be read."""
    try:
        return int(RAPL.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def write_results(lines: Lines, others: Lines, epochs: int) -> None:
    """The JSON file and the table made of it; others: runs with other settings."""
    if not lines:
        return
    about = {**environment(ROOT), "epochs": epochs, "width": WIDTH}
    about |= {"watts": WATTS, "pruning": PRUNING}
    body = {"about": about, "runs": lines, "others": others}
    write_text(RESULTS.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".md"), page(about, lines, others))


if __name__ == "__main__":
    main()
