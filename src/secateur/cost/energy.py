"""Energy of a forward: counted by the hardware, or time x watts that the user states.

Counters are read around repeated forwards, models taking turns as in `measure_latency`. Without a
counter the watts have to be given: none are assumed. What comes out then is an estimate, and is
called one wherever it is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import torch
from torch import nn

from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.energy_counters import Counter, find_counter
from secateur.cost.latency import Latency, measure_latency, threads_set
from secateur.cost.runtimes.prepared import Prepared, prepare_all

ROUNDS = 5
SECONDS = 1.0
"""How long forwards are repeated between two readings; counters move about every millisecond."""


@dataclass(frozen=True, slots=True)
class Energy:
    """Joules of one forward of a batch: one sample a round.

    source: the counter, or the watts and where they come from. estimate: whether it is time x watts
    rather than counted.
    """

    samples_j: tuple[float, ...]
    batch: int
    source: str
    estimate: bool

    @property
    def joules(self) -> float:
        """Median over the rounds.

        >>> Energy((1.0, 2.0, 9.0), 1, "RAPL package-0", False).joules
        2.0
        """
        return median(self.samples_j)

    def to_json(self) -> dict[str, Any]:
        """The fields and the median."""
        return asdict(self) | {"joules": self.joules}


def measure_energy(
    models: Mapping[str, nn.Module | Prepared],
    example_inputs: Any,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
    watts: float | None = None,
    counter: Counter | None = None,
    runtime: str = "eager",
    precision: str = "fp32",
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
) -> dict[str, Energy]:
    """Joules that a forward of each model takes, by name, on the device of the parameters.

    watts: what the device draws; energy is then estimated as watts x measured latency. Without,
    `counter` is read, by default the device's own. The rest is as for `measure_latency`.

    Raises: ValueError where there is neither a counter nor watts.
    """
    modules = {n: m.model if isinstance(m, Prepared) else m for n, m in models.items()}
    device = device_of(next(iter(modules.values()), nn.Module()))
    if watts is None:
        counter = needed_counter(device, counter)  # before anything is prepared
    inputs, batch = resize_batch(example_inputs, batch_size)
    inputs = moved(inputs, device)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(threads_set(threads))
        for module in modules.values():
            stack.enter_context(evaluating(module))
        ready = prepare_all(models, inputs, runtime=runtime, precision=precision, threads=threads)
        if counter is None or watts is not None:
            timed = measure_latency(ready, inputs, threads=threads)
            return {name: estimate_energy(latency, watts or 0.0) for name, latency in timed.items()}
        runs = {name: one.run for name, one in ready.items()}
        samples = _rounds(runs, counter, device, rounds, seconds)
    return {name: Energy(tuple(own), batch, counter.name, False) for name, own in samples.items()}


def estimate_energy(latency: Latency, watts: float) -> Energy:
    """Watts x time, said to be an estimate. Raises: ValueError for watts that are not positive."""
    if not watts > 0:
        raise ValueError(f"watts={watts}: must be greater than zero")
    joules = tuple(watts * ms / 1e3 for ms in latency.samples_ms)
    return Energy(joules, latency.batch, f"{watts:g} W as given x measured time", True)


def needed_counter(device: torch.device, counter: Counter | None = None) -> Counter:
    """The counter of a device. Raises: ValueError that says what to type where there is none."""
    found = counter or find_counter(device)
    if found is None:
        where = (
            "pynvml is not installed, or the card counts none"
            if device.type == "cuda"
            else "none can be read in /sys/class/powercap, which may need root"
        )
        raise ValueError(
            f"there is no counter of energy for {device.type} ({where}); state the power that the "
            "device draws, for example watts=45 (--watts 45), and energy is estimated as watts x "
            "measured time"
        )
    return found


def _rounds(
    runs: Mapping[str, Callable[[], Any]],
    counter: Counter,
    device: torch.device,
    rounds: int,
    seconds: float,
) -> dict[str, list[float]]:
    """Joules per forward of each round, by name; every second round runs backwards."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for turn in range(rounds):
        for name in list(runs)[:: -1 if turn % 2 else 1]:
            samples[name].append(_joules(runs[name], counter, device, seconds))
    return samples


def _joules(
    run: Callable[[], Any], counter: Counter, device: torch.device, seconds: float
) -> float:
    """Joules of one forward, over as many as last `seconds`."""
    _wait(device)
    before, started, forwards = counter.joules(), time.perf_counter(), 0
    while not forwards or time.perf_counter() - started < seconds:
        run()
        _wait(device)
        forwards += 1
    return (counter.joules() - before) / forwards


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
