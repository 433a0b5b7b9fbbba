"""Measuring a device for one model: what each module takes at several widths.

The model is cut evenly to a few widths; which units go does not matter to the time. Whole models
are measured side by side as any latency is, and each whole is shared among the modules: by what the
runtime says of its nodes, or by a clock in every module, whose own cost drops out.
"""

from __future__ import annotations

import hashlib
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.atomic import write_text
from secateur.core.graph import Graph
from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.clocks import own_times
from secateur.cost.latency import SLOW_MS, Latency, hardware_name, measure_latency, threads_set
from secateur.cost.runtimes.prepared import Prepared, check, prepare, version_of
from secateur.cost.timed import LatencyModel, Sample, Timings
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.select.plan import plan

WIDTHS = (0.85, 0.7, 0.55, 0.4, 0.25, 0.1)
"""Shares of every group that the measured models keep, beside the whole model."""
ROUNDS = 9
SECONDS = 30.0
"""Rounds end after so long, where forwards take seconds."""


@dataclass(frozen=True)
class Device:
    """How a model is run: batch (that of the example where None), threads (torch's choice), runtime
    ("eager", "compile", "onnxruntime", "openvino") and precision ("fp32", "bf16", "int8")."""

    batch_size: int | None = None
    threads: int | None = None
    runtime: str = "eager"
    precision: str = "fp32"

    def __post_init__(self) -> None:
        check(self.runtime, self.precision)

    def prepare(self, model: nn.Module, example_inputs: Any) -> Prepared:
        """The forward of a model in evaluation mode, where the model lies. Raises: ValueError."""
        inputs, _ = resize_batch(example_inputs, self.batch_size)
        with evaluating(model), threads_set(self.threads):
            return prepare(
                model,
                moved(inputs, device_of(model)),
                runtime=self.runtime,
                precision=self.precision,
                threads=self.threads,
            )

    def measure(
        self,
        models: Mapping[str, nn.Module | Prepared],
        example_inputs: Any,
        *,
        rounds: int,
        seconds: float,
        warmup: int = 3,
    ) -> dict[str, Latency]:
        """Latencies side by side, see `measure_latency`."""
        return measure_latency(
            models,
            example_inputs,
            batch_size=self.batch_size,
            threads=self.threads,
            rounds=rounds,
            warmup=warmup,
            runtime=self.runtime,
            precision=self.precision,
            seconds=seconds,
        )


def time_device(
    model: nn.Module,
    graph: Graph,
    example_inputs: Any,
    *,
    device: Device | None = None,
    widths: Sequence[float] = WIDTHS,
    multiple_of: int = 1,
    cache: Path | None = None,
) -> Timings:
    """What the modules of a model take on the device that it lies on.

    ONNX Runtime and OpenVINO say which node takes what; in `compile` whole models are measured, and
    shared among the modules as in eager, which is less sure than what all take.

    widths: shares of every group that the timed models keep. multiple_of: of their layers' widths.
    cache: a folder in which timings are kept by model, device and conditions, and found again;
    `cache_folder()` is the usual one. Raises: BudgetError, CutError as plans and cuts do.
    """
    device = device or Device()
    conditions = conditions_of(model, example_inputs, device)
    key = key_of(graph, conditions, (*widths, multiple_of, ROUNDS))
    place = None if cache is None else cache / f"{key}.json"
    if place is not None and place.is_file():
        return Timings.from_json(place.read_text(encoding="utf-8"))
    timings = Timings(
        graph.hash, _samples(model, graph, example_inputs, device, widths, multiple_of), conditions
    )
    timings = replace(timings, error=left_out_error(graph, timings))
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, timings.to_json())
    return timings


def _samples(
    model: nn.Module,
    graph: Graph,
    example_inputs: Any,
    device: Device,
    widths: Sequence[float],
    multiple_of: int,
) -> tuple[Sample, ...]:
    """The whole model and one for each width, measured and shared among their modules."""
    scores = score(graph, model, criterion="random")
    plans = {
        str(made.counts()): made  # of few units two shares may come to the same
        for made in (plan(graph, scores, keep=w, multiple_of=multiple_of) for w in widths)
    }
    counts: dict[str, Mapping[int, int]] = {"whole": {}}
    counts |= {name: made.counts() for name, made in plans.items()}
    known = {op.module for op in graph.ops}
    ready, shares = {}, {}
    for name in counts:  # one after another: what a share is taken from can be let go
        one = device.prepare(cut(model, plans[name]) if name in plans else model, example_inputs)
        shares[name] = _own(one, example_inputs, device, known)
        slow = one.runtime == "eager" and sum(shares[name].values()) > SLOW_MS
        ready[name] = replace(one, own_times=None, repeats=1 if slow else None)
    measured = device.measure(
        ready,
        example_inputs,
        rounds=ROUNDS,
        warmup=1,
        seconds=SECONDS,
    )
    samples = []
    for name, kept in counts.items():
        whole, own = measured[name].median_ms, shares[name]
        scale = whole / sum(own.values())
        samples.append(Sample(kept, whole, {path: ms * scale for path, ms in own.items()}))
    return tuple(samples)


def _own(one: Prepared, example_inputs: Any, device: Device, known: set[str]) -> dict[str, float]:
    """Milliseconds by the modules that the graph knows; any other's belong to what it is in."""
    if one.own_times is not None:
        found = one.own_times()
    else:
        inputs, _ = resize_batch(example_inputs, device.batch_size)
        found = own_times(one.model, inputs, threads=device.threads)
    own: dict[str, float] = {}
    for path, ms in found.items():
        while path and path not in known:
            path = path.rpartition(".")[0]
        own[path] = own.get(path, 0.0) + ms
    return own


def cache_folder() -> Path:
    """Where timings are kept: $SECATEUR_CACHE, else the user's cache folder."""
    given = os.environ.get("SECATEUR_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "secateur"


def left_out_error(graph: Graph, timings: Timings) -> float:
    """Median relative error of predicting each inner sample from the others."""
    samples, errors = timings.samples, []
    for k in range(1, len(samples) - 1):
        others = replace(timings, samples=(*samples[:k], *samples[k + 1 :]))
        predicted = LatencyModel(graph, others).latency_ms(samples[k].counts)
        errors.append(abs(predicted / samples[k].whole_ms - 1.0))
    return statistics.median(errors) if errors else float("nan")


def conditions_of(model: nn.Module, example_inputs: Any, device: Device) -> dict[str, str]:
    """All that a time depends on beside the model."""
    place, dtype = device_of(model), next(model.parameters(), torch.empty(0)).dtype
    _, batch = resize_batch(example_inputs, device.batch_size)
    return {
        "runtime": device.runtime,
        "precision": device.precision,
        "torch": torch.__version__,
        "version": version_of(device.runtime),
        "batch": str(batch),
        "threads": str(device.threads or torch.get_num_threads()),
        "device": str(place),
        "dtype": str(dtype).removeprefix("torch."),
        "hardware": hardware_name(place),
    }


def key_of(graph: Graph, conditions: Mapping[str, str], what: Sequence[float]) -> str:
    """The name under which something measured is kept."""
    text = f"{graph.hash} {sorted(conditions.items())} {tuple(what)}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
