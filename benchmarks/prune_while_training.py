"""What pruning while training saves: Fashion-MNIST, the same epochs for all.

    python benchmarks/prune_while_training.py [--seeds 0 1 2] [--epochs 20]

Dense training; the same training while the model is cut to a share of its MACs, by the training's
own gradients; and the same with units chosen at random. MACs are counted over the whole training,
seconds are processor seconds of one thread of the training alone. A line for each finished run is
kept in runs/prune_while_training.jsonl and not made again; a run that was killed goes on from its
last epoch, with the seconds that it had taken till then.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from fashion import ROOT, Augmented, fashion_data, fashion_net, settings, test_batches

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
PRUNING: dict[str, Any] = {
    "budget": "macs=44%",
    "cuts": 8,
    "begin": 0.02,
    "end": 0.25,
    "options": {
        # widths that a processor's kernels like; no less than half of the first layers, at whose
        # resolution most of the time is spent, and three quarters of the others
        "multiple_of": 8,
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
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    lines, data = read(), None
    for seed in arguments.seeds:
        for way in arguments.ways:
            key = [way, seed, arguments.epochs, described(WAYS[way])]
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
        if line["epochs"] == arguments.epochs and line["key"][3] == described(WAYS[line["way"]])
    ]
    write_results(kept, arguments.epochs)


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
    model, pruning, clock = fashion_net(seed=seed), WAYS[way], Clock()
    batches, how = Augmented(data, seed=seed), settings(epochs, seed=seed)
    folder = (
        CHECKPOINTS / hashlib.sha256(f"{way} {seed} {epochs} {pruning}".encode()).hexdigest()[:8]
    )
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


def write_results(lines: Sequence[dict[str, Any]], epochs: int) -> None:
    """The JSON file and the table made of it."""
    if not lines:
        return
    about = {**environment(ROOT), "epochs": epochs, "watts": WATTS, "pruning": PRUNING}
    write_text(
        RESULTS.with_suffix(".json"), json.dumps({"about": about, "runs": lines}, indent=1) + "\n"
    )
    write_text(RESULTS.with_suffix(".md"), table(about, lines))


def table(about: Mapping[str, Any], lines: Sequence[dict[str, Any]]) -> str:
    """The whole page."""
    measured = all(line["energy_j"] is not None for line in lines)
    energy = "energy" if measured else "energy (estimate)"
    how = (
        "Energy is the processor's own counter (RAPL)."
        if measured
        else "This machine's energy counter cannot be read: energy is an estimate, processor "
        f"seconds times {about['watts']:g} W, which is stated and not measured; its ratio is that "
        "of the seconds."
    )
    head = [
        "# Pruning while training",
        "",
        "Generated by `python benchmarks/prune_while_training.py`; do not edit. Fashion-MNIST, the "
        f"CNN of `fashion.py` from random weights, {about['epochs']} epochs for all, the same "
        "batches and learning rates. The model is cut in "
        f"{about['pruning']['cuts']} steps to {about['pruning']['budget']}, between "
        f"{about['pruning']['begin']:.0%} and {about['pruning']['end']:.0%} of the training, "
        "optimizer state with it. Accuracy on the 10,000 test images at the end. MACs are those "
        "of all forwards of the training, beside what the dense model takes for as many images. "
        "Seconds are processor seconds of the training, tracing, planning and cutting included. "
        + how,
        "",
        f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
        f"{about['torch']}, commit {about['commit']}, {about['date']}.",
        "",
        f"| | accuracy, % | against dense | training MACs | seconds | {energy} | parameters |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [row(way, lines, about["watts"]) for way in WAYS if of(way, lines)]
    runs = [
        "",
        "Every run:",
        "",
        "| | seed | accuracy, % | MACs | processor s | wall s |",
        "|---|---|---|---|---|---|",
        *(
            f"| {line['way']} | {line['seed']} | {100 * line['accuracy']:.2f} | "
            f"{line['macs_share']:.1%} | {line['cpu_s']:.0f} | {line['wall_s']:.0f} |"
            for line in sorted(
                lines, key=lambda line: (line["seed"], list(WAYS).index(line["way"]))
            )
        ),
    ]
    return "\n".join([*head, *rows, *runs]) + "\n"


def row(way: str, lines: Sequence[dict[str, Any]], watts: float) -> str:
    """Means over the seeds that dense has too, and the spread of the accuracies."""
    own, dense = of(way, lines), of("dense", lines)
    both = [seed for seed in own if seed in dense]
    if not both:
        return f"| {way} | no dense run of the same seed yet | | | | | |"
    accuracies = [100 * own[seed]["accuracy"] for seed in both]
    spread = f" ± {statistics.stdev(accuracies):.2f}" if len(both) > 1 else ""
    against = statistics.mean(
        100 * (own[seed]["accuracy"] - dense[seed]["accuracy"]) for seed in both
    )
    seconds = statistics.mean(own[seed]["cpu_s"] / dense[seed]["cpu_s"] for seed in both)
    joules = statistics.mean(own[seed]["energy_j"] or own[seed]["cpu_s"] * watts for seed in both)
    return (
        f"| {way} | {statistics.mean(accuracies):.2f}{spread} | {against:+.2f} | "
        f"{statistics.mean(own[seed]['macs_share'] for seed in both):.1%} | {seconds:.1%} | "
        f"{joules:,.0f} J | {statistics.mean(own[s]['params'] for s in both):,.0f} |"
    )


def of(way: str, lines: Sequence[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """A way's runs by seed."""
    return {line["seed"]: line for line in lines if line["way"] == way}


if __name__ == "__main__":
    main()
