"""Measuring a device for one model: what each module takes at several widths.

The model is cut evenly to a few widths; which units go does not matter to the time. Whole models
are measured side by side as any latency is. Then each runs with a clock in every module, which
shares the whole among the modules: the clocks' own cost drops out.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.core.atomic import write_text
from secateur.core.fingerprint import named_modules
from secateur.core.graph import Graph
from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.latency import hardware_name, measure_latency, threads_set
from secateur.cost.runtimes import RUNTIMES, call_of
from secateur.cost.timed import LatencyModel, Sample, Timings
from secateur.criteria.score import score
from secateur.cut import cut
from secateur.select.plan import plan

WIDTHS = (0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
"""Shares of every group that the measured models keep, beside the whole model."""
ROUNDS = 9
PASSES = 7
"""Forwards with clocks, of which the median counts; as many again go before, to warm up."""


@dataclass(frozen=True)
class Device:
    """How a model is run: batch (that of the example where None), threads (torch's choice), and
    runtime, one of "eager", "compile", "onnxruntime"."""

    batch_size: int | None = None
    threads: int | None = None
    runtime: str = "eager"

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise ValueError(f"runtime {self.runtime!r} is unknown; one of {', '.join(RUNTIMES)}")


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

    In another runtime than eager whole models are measured there, and shared among the modules as
    in eager: which module takes what is then less sure than what all take.

    widths: shares of every group that the timed models keep. multiple_of: of their layers' widths.
    cache: a folder in which timings are kept by model, device and conditions, and found again;
    `cache_folder()` is the usual one. Raises: BudgetError, CutError as plans and cuts do.
    """
    device = device or Device()
    conditions = _conditions(model, example_inputs, device)
    place = (
        None if cache is None else cache / f"{_key(graph, conditions, (*widths, multiple_of))}.json"
    )
    if place is not None and place.is_file():
        return Timings.from_json(place.read_text(encoding="utf-8"))
    scores = score(graph, model, criterion="random")
    plans = {
        str(made.counts()): made  # of few units two shares may come to the same
        for made in (plan(graph, scores, keep=w, multiple_of=multiple_of) for w in widths)
    }
    models = {"whole": model, **{name: cut(model, made) for name, made in plans.items()}}
    counts: list[Mapping[int, int]] = [{}, *(made.counts() for made in plans.values())]
    measured = measure_latency(
        models,
        example_inputs,
        batch_size=device.batch_size,
        threads=device.threads,
        rounds=ROUNDS,
        warmup=1,
        runtime=device.runtime,
    )
    inputs, _ = resize_batch(example_inputs, device.batch_size)
    samples = []
    for (name, one), kept in zip(models.items(), counts, strict=True):
        own = own_times(one, inputs, threads=device.threads)
        whole = measured[name].median_ms
        scale = whole / sum(own.values())
        samples.append(Sample(kept, whole, {path: ms * scale for path, ms in own.items()}))
    timings = Timings(graph.hash, tuple(samples), conditions)
    timings = replace(timings, error=left_out_error(graph, timings))
    if place is not None:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, timings.to_json())
    return timings


def cache_folder() -> Path:
    """Where timings are kept: $SECATEUR_CACHE, else the user's cache folder."""
    given = os.environ.get("SECATEUR_CACHE")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(given) if given else Path(home) / "secateur"


def own_times(model: nn.Module, inputs: Any, *, threads: int | None = None) -> dict[str, float]:
    """Milliseconds that each module takes by itself in one forward, its children's taken away."""
    paths = {id(module): path for path, module in reversed(named_modules(model))}
    passes: list[dict[str, float]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(threads_set(threads))
        stack.enter_context(evaluating(model))
        device = device_of(model)
        run = call_of(model, moved(inputs, device))
        own = stack.enter_context(_clocks(paths, device))
        for _ in range(2 * PASSES):
            own.clear()
            run()
            passes.append(dict(own))
    names = dict.fromkeys(name for one in passes for name in one)
    late = passes[PASSES:]
    return {n: statistics.median(one.get(n, 0.0) for one in late) for n in names}


@contextmanager
def _clocks(paths: Mapping[int, str], device: torch.device) -> Iterator[dict[str, float]]:
    """Milliseconds by path of every module call inside the block, without what it calls; on an
    accelerator until the call's own kernels are done."""
    asynchronous = device.type != "cpu"
    own: dict[str, float] = {}
    inner = [0.0]
    plain: Callable[..., Any] = nn.Module._call_impl
    clock = time.perf_counter

    def clocked(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        inner.append(0.0)
        started = clock()
        try:
            return plain(module, *args, **kwargs)
        finally:
            if asynchronous:
                torch.accelerator.synchronize(device)
            spent = clock() - started
            path = paths.get(id(module), "")
            own[path] = own.get(path, 0.0) + 1e3 * (spent - inner.pop())
            inner[-1] += spent

    nn.Module._call_impl = clocked  # type: ignore[assignment, method-assign]
    try:
        yield own
    finally:
        nn.Module._call_impl = plain  # type: ignore[method-assign]


def left_out_error(graph: Graph, timings: Timings) -> float:
    """Median relative error of predicting each inner sample from the others."""
    samples, errors = timings.samples, []
    for k in range(1, len(samples) - 1):
        others = replace(timings, samples=(*samples[:k], *samples[k + 1 :]))
        predicted = LatencyModel(graph, others).latency_ms(samples[k].counts)
        errors.append(abs(predicted / samples[k].whole_ms - 1.0))
    return statistics.median(errors) if errors else float("nan")


def _conditions(model: nn.Module, example_inputs: Any, device: Device) -> dict[str, str]:
    place, dtype = device_of(model), next(model.parameters(), torch.empty(0)).dtype
    _, batch = resize_batch(example_inputs, device.batch_size)
    return {
        "runtime": device.runtime,
        "torch": torch.__version__,
        "batch": str(batch),
        "threads": str(device.threads or torch.get_num_threads()),
        "device": str(place),
        "dtype": str(dtype).removeprefix("torch."),
        "hardware": hardware_name(place),
    }


def _key(graph: Graph, conditions: Mapping[str, str], widths: Sequence[float]) -> str:
    text = f"{graph.hash} {sorted(conditions.items())} {tuple(widths)} {ROUNDS} {PASSES}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]
