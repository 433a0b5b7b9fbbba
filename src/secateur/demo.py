"""The demo: a digit classifier of a million parameters, pruned to a fraction, proved and measured.

`python -m secateur.demo` trains a CNN on scikit-learn's handwritten digits, prunes it with the
Taylor criterion and with the random one to the same budget, recovers both in the same number of
epochs, proves every cut, saves the pruned model, loads it again and measures that. It writes
`result.json`, `report.html`, `plan.json` and `model/`, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.core.atomic import write_text
from secateur.core.cost import Cost
from secateur.core.proof import Proof
from secateur.cost.latency import measure_latency
from secateur.cut import verify
from secateur.pipeline import PruneResult, prune
from secateur.report.evaluate import evaluate
from secateur.report.explain import explain
from secateur.report.html import write_report
from secateur.report.machine import this_machine
from secateur.report.record import save_result
from secateur.report.result import Curve, Result
from secateur.report.row import ModelRow
from secateur.report.table import print_result
from secateur.storage import load, save
from secateur.train import FinetuneSettings, TensorBatches, TrainLog, accuracy, finetune
from secateur.zoo.data import Data, load_data

BATCH = 64
WHOLE_VECTOR = 16
"""Channels are cut to multiples of this: in between, a convolution on a CPU gets no faster."""
TRAINING = FinetuneSettings(
    epochs=7, optimizer="adamw", lr=2e-3, weight_decay=0.02, schedule="one_cycle", warmup=0.2
)
RECOVERY = replace(TRAINING, epochs=12, lr=3e-3)


@dataclass(frozen=True)
class Attempt:
    """How one pruned model is made; `recovery` is the training after the cut."""

    criterion: str
    budget: str
    selector: str = "uniform"
    normalise: str = "mean"
    recovery: FinetuneSettings = RECOVERY


BUDGET = "params=15%,macs=18%"
TAYLOR = Attempt("taylor", BUDGET, selector="global", normalise="none")
RANDOM = Attempt("random", BUDGET)
MODEST = Attempt(
    "taylor",
    "params=70%,macs=65%",
    recovery=replace(TRAINING, epochs=5, lr=1e-3),
)


class DigitsCNN(nn.Module):
    """Four convolutions and two linear layers for 8 x 8 grey digits: 0.98 million parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_block(1, 32), *_block(32, 64), nn.MaxPool2d(2),
            *_block(64, 128), *_block(128, 128), nn.MaxPool2d(2),
        )  # fmt: skip
        self.hidden = nn.Linear(128 * 2 * 2, 1408)
        self.classifier = nn.Linear(1408, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 10] of images [N, 1, 8, 8]."""
        x = self.hidden(self.features(x).flatten(1)).relu()
        return self.classifier(x)  # type: ignore[no-any-return]


def untrained() -> tuple[DigitsCNN, Tensor]:
    """The demo's model with random weights and an example input, for trying the command line:
    `secateur inspect secateur.demo:untrained`."""
    torch.manual_seed(0)
    return DigitsCNN().eval(), torch.zeros(1, 1, 8, 8)


def _block(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module, nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


@dataclass(frozen=True)
class Candidate:
    """One pruned and recovered model with how it came about."""

    pruned: PruneResult
    proof: Proof
    log: TrainLog

    @property
    def model(self) -> nn.Module:
        return self.pruned.model


def main(arguments: list[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m secateur.demo", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="run directory")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    result = run(options.out, options.seed)
    print_result(result)
    print(f"\nreport: {options.out / 'report.html'}   ({time.perf_counter() - started:.0f} s)")
    return 0


def run(out: Path, seed: int) -> Result:
    """Do all of it, write the run directory `out`, and return the result."""
    data = load_data("digits", seed=seed)
    torch.manual_seed(seed)
    dense = DigitsCNN()
    _say("training the dense model")
    _train(dense, data, TRAINING, seed)
    _say(f"pruning it to {MODEST.budget}, and to {BUDGET} with scores and at random")
    modest, taylor, random = (
        _candidate(dense, data, attempt, seed) for attempt in (MODEST, TAYLOR, RANDOM)
    )
    _say("saving, loading again and measuring")
    save(taylor.model, out / "model", plan=taylor.pruned.plan, example=data.test.tensors[0][:1])
    loaded = load(out / "model", DigitsCNN)
    models = {
        "dense": dense,
        "pruned": loaded,
        "random": random.model,
        "30% fewer": modest.model,
    }
    rows = _rows(models, data, (taylor, taylor, random, modest))
    result = _result(rows, taylor, random, seed)
    _write(out, result, taylor)
    return result


def _say(what: str) -> None:
    print(f"{what} ...", file=sys.stderr, flush=True)


def _train(model: nn.Module, data: Data, settings: FinetuneSettings, seed: int) -> TrainLog:
    images, labels = _shifted(*data.train.tensors)
    batches = TensorBatches(images, labels, batch_size=BATCH, seed=seed)
    held_out = TensorBatches(*data.validation.tensors, batch_size=64, shuffle=False)
    return finetune(
        model,
        batches,
        settings=replace(settings, seed=seed),
        loss_fn=nn.CrossEntropyLoss(label_smoothing=0.05),
        validate=lambda m: accuracy(m, held_out),
    )


def _shifted(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The training images and copies shifted by a pixel to each side."""
    padded = F.pad(images, (1, 1, 1, 1))
    shifts = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    moved = [padded[..., dy : dy + 8, dx : dx + 8] for dy, dx in shifts]
    return torch.cat(moved), labels.repeat(len(shifts))


def _candidate(dense: nn.Module, data: Data, attempt: Attempt, seed: int) -> Candidate:
    images = data.train.tensors[0]
    pruned = prune(
        dense,
        images[:1],
        budget=attempt.budget,
        criterion=attempt.criterion,
        data=TensorBatches(*data.train.tensors, batch_size=128, seed=seed),
        loss_fn=F.cross_entropy,
        seed=seed,
        verify=False,  # below, on more images
        selector=attempt.selector,
        normalise=attempt.normalise,
        min_units=WHOLE_VECTOR,
        multiple_of=WHOLE_VECTOR,
    )
    proof = verify(dense, pruned.model, pruned.plan, images[:BATCH])  # before recovery moves it
    return Candidate(pruned, proof, _train(pruned.model, data, attempt.recovery, seed))


def _rows(
    models: dict[str, nn.Module], data: Data, origins: tuple[Candidate, ...]
) -> list[ModelRow]:
    test = TensorBatches(*data.test.tensors, batch_size=64, shuffle=False)
    latency = measure_latency(models, data.test.tensors[0][:1], batch_size=BATCH, rounds=40)
    rows = []
    for (name, model), origin in zip(models.items(), origins, strict=True):
        counted: Cost = origin.pruned.before if name == "dense" else origin.pruned.after
        rows.append(
            evaluate(
                model,
                name,
                macs=counted.macs,
                peak_memory_bytes=counted.peak_memory_bytes,
                metric=lambda m: accuracy(m, test),
                latency=latency[name],
            )
        )
    return rows


def _result(rows: list[ModelRow], taylor: Candidate, random: Candidate, seed: int) -> Result:
    plan = taylor.pruned.plan
    return Result(
        title="Handwritten digits, a CNN of a million parameters",
        dense=rows[0],
        pruned=rows[1],
        random=rows[2],
        extra=tuple(rows[3:]),
        proof=taylor.proof,
        plan_hash=plan.hash,
        machine=this_machine(),
        curves=(_curve("pruned", taylor.log), _curve("random", random.log)),
        explanation=explain(plan, graph=taylor.pruned.graph, scores=taylor.pruned.scores),
        settings=plan.settings,
        seed=seed,
    )


def _curve(name: str, log: TrainLog) -> Curve:
    return Curve(
        name,
        tuple(row.loss for row in log),
        tuple(row.metric for row in log if row.metric is not None),
    )


def _write(out: Path, result: Result, candidate: Candidate) -> None:
    candidate.pruned.plan.save(out / "plan.json")
    write_text(out / "graph.json", json.dumps(candidate.pruned.graph.to_json(), indent=1) + "\n")
    write_text(out / "log.jsonl", candidate.log.to_jsonl())
    save_result(result, out / "result.json")
    write_report(result, out / "report.html")


if __name__ == "__main__":
    sys.exit(main())
