"""Latency of several models, measured side by side in one run.

Models take turns within a round and the order changes from round to round, so that heat, clocks
and neighbours on the machine disturb all of them alike. A round repeats each forward until it
lasts about `ROUND_MS`, and gives one sample: milliseconds per forward. Everything that the number
depends on (batch, threads, device, dtype, hardware) is stated beside it.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from platform import machine, processor
from typing import Any

import numpy as np
import torch
from torch import nn

from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.runtimes.prepared import Prepared, prepare_all

ROUND_MS = 20.0
SETTLE_MS = 200.0
SLOW_MS = 1000.0
MOST_REPEATS = 10_000
FEWEST_ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds per forward of one model: one sample a round, and where they were taken."""

    samples_ms: tuple[float, ...]
    repeats: int
    batch: int
    threads: int
    device: str
    dtype: str
    hardware: str
    runtime: str = "eager"

    @property
    def median_ms(self) -> float:
        """Median over the rounds.

        >>> Latency((1.0, 2.0, 9.0), 1, 64, 2, "cpu", "float32", "x").median_ms
        2.0
        """
        return float(np.median(self.samples_ms))

    @property
    def p10_ms(self) -> float:
        """10th percentile."""
        return float(np.percentile(self.samples_ms, 10))

    @property
    def p90_ms(self) -> float:
        """90th percentile."""
        return float(np.percentile(self.samples_ms, 90))

    @property
    def mad_ms(self) -> float:
        """Median absolute deviation from the median."""
        samples = np.asarray(self.samples_ms)
        return float(np.median(np.abs(samples - np.median(samples))))

    @property
    def throughput_per_s(self) -> float:
        """Samples of the batch per second at the median."""
        return 1e3 * self.batch / self.median_ms

    def to_json(self) -> dict[str, Any]:
        """Fields and the figures derived from them."""
        derived = ("median_ms", "p10_ms", "p90_ms", "mad_ms", "throughput_per_s")
        return asdict(self) | {name: round(getattr(self, name), 6) for name in derived}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Latency:
        """Inverse of `to_json`; derived figures are computed again."""
        kept = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        return cls(**kept | {"samples_ms": tuple(float(ms) for ms in body["samples_ms"])})


@torch.inference_mode()
def measure_latency(
    models: Mapping[str, nn.Module | Prepared],
    example_inputs: Any,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    rounds: int = 30,
    warmup: int = 3,
    runtime: str = "eager",
    precision: str = "fp32",
    seconds: float | None = None,
) -> dict[str, Latency]:
    """Latency of every model by its name, in evaluation mode, on the device of the parameters.

    `batch_size` repeats or trims the example along dim 0; `threads` holds for this call only.
    `runtime` and `precision` are as for `prepare`; a model that is prepared already runs as it is.
    `seconds` ends the rounds once they took that long, after one at least: models whose forward
    takes a second are then judged by few samples.
    Training flags, thread count and garbage collection are as before when this returns.
    Raises: ValueError for fewer than five rounds, no model, or models on different devices.
    """
    if rounds < FEWEST_ROUNDS or warmup < 1:
        raise ValueError(
            f"rounds={rounds}, warmup={warmup}: a spread needs at least {FEWEST_ROUNDS} rounds "
            "after one warm-up; write for example rounds=30, warmup=3"
        )
    modules = {n: m.model if isinstance(m, Prepared) else m for n, m in models.items()}
    device = _common_device(modules)
    inputs, batch = resize_batch(example_inputs, batch_size)
    inputs = moved(inputs, device)
    with ExitStack() as stack:
        stack.enter_context(threads_set(threads))
        for module in modules.values():
            stack.enter_context(evaluating(module))
        ready = prepare_all(models, inputs, runtime=runtime, precision=precision, threads=threads)
        stack.enter_context(_no_garbage_collection())
        repeats = {
            name: one.repeats or _calibrate(one.run, device, warmup) for name, one in ready.items()
        }
        samples = _rounds(ready, device, repeats, rounds, seconds)
        used = torch.get_num_threads()
    return {
        name: Latency(
            samples_ms=tuple(round(ms, 6) for ms in samples[name]),  # nanoseconds
            repeats=repeats[name],
            batch=batch,
            threads=used,
            device=str(device),
            dtype=_dtype(module, ready[name].precision),
            hardware=hardware_name(device),
            runtime=ready[name].runtime,
        )
        for name, module in modules.items()
    }


def _rounds(
    ready: Mapping[str, Prepared],
    device: torch.device,
    repeats: Mapping[str, int],
    rounds: int,
    seconds: float | None,
) -> dict[str, list[float]]:
    """Milliseconds per forward of each round, by name."""
    samples: dict[str, list[float]] = {name: [] for name in ready}
    started = time.perf_counter()
    for turn in range(rounds):
        for name in _order(tuple(ready), turn):
            samples[name].append(_time_ms(ready[name].run, device, repeats[name]))
        if seconds is not None and time.perf_counter() - started >= seconds:
            break
    return samples


def hardware_name(device: torch.device) -> str:
    """What the maker calls the processor or accelerator."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type != "cpu":
        return f"{device.type} on {machine()}"
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or processor() or machine()


def _common_device(models: Mapping[str, nn.Module]) -> torch.device:
    devices = {name: device_of(model) for name, model in models.items()}
    if len(set(devices.values())) != 1:
        raise ValueError(
            f"models to compare must be on one device, there are {devices or 'no models'}; "
            "move them with model.to(device)"
        )
    return next(iter(devices.values()))


def _dtype(model: nn.Module, precision: str) -> str:
    """What a forward computes in: that of the parameters, where nothing else was asked for."""
    if precision != "fp32":
        return {"bf16": "bfloat16"}.get(precision, precision)
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return str(next(floating, torch.get_default_dtype())).removeprefix("torch.")


def _order(names: tuple[str, ...], turn: int) -> tuple[str, ...]:
    """Every order begins elsewhere, every second one runs backwards."""
    start = (turn // 2) % len(names)
    order = names[start:] + names[:start]
    return order[::-1] if turn % 2 else order


def _calibrate(run: Callable[[], Any], device: torch.device, warmup: int) -> int:
    """Forwards per round so that a round lasts about ROUND_MS, judged by the fastest try.

    Tries go on for SETTLE_MS: clocks and thread pools are slow to wake. One forward longer
    than SLOW_MS is warming enough.
    """
    repeats, tries, spent_ms = 1, 0, 0.0
    for _ in range(warmup):
        if _time_ms(run, device, 1) > SLOW_MS:
            return 1
    while tries < 3 or spent_ms < SETTLE_MS:
        forward_ms = max(_time_ms(run, device, repeats), 1e-4)
        spent_ms += forward_ms * repeats
        repeats = min(MOST_REPEATS, max(repeats, math.ceil(ROUND_MS / forward_ms)))
        tries += 1
    return repeats


def _time_ms(run: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Milliseconds per forward over `repeats` forwards."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            return _time_cuda_ms(run, repeats)
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    start = time.perf_counter_ns()
    for _ in range(repeats):
        run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return (time.perf_counter_ns() - start) / 1e6 / repeats


def _time_cuda_ms(run: Callable[[], Any], repeats: int) -> float:
    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    start.record()
    for _ in range(repeats):
        run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end)) / repeats


@contextmanager
def threads_set(count: int | None) -> Iterator[None]:
    """So many threads of torch inside the block; None leaves them. Raises: ValueError."""
    before = torch.get_num_threads()
    if count is not None and count < 1:
        raise ValueError(f"threads={count}: must be at least 1")
    try:
        torch.set_num_threads(count or before)
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
