"""`secateur simulate MODEL --ranks 8 --parallel dp=4,tp=2`: bytes, time and memory of every rank.

Nothing is started: it is arithmetic over the model's tensors and operators, or over a shape.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from rich.console import Console, RenderableType
from rich.console import Group as Stacked
from rich.table import Table

from secateur.cli.output import table
from secateur.cli.simulate_settings import SimulateSettings
from secateur.cli.sources import fetch_model
from secateur.cost.batch import resize_batch
from secateur.engines.mesh import parse_mesh
from secateur.engines.simulator.choosing import fastest
from secateur.engines.simulator.collectives import TRANSPORTS
from secateur.engines.simulator.forecast import Forecast, RankForecast, forecast
from secateur.engines.simulator.machine import GB, Machine
from secateur.engines.simulator.memory import RankMemory
from secateur.engines.simulator.shapes import shape_named
from secateur.engines.simulator.traffic import PURPOSES
from secateur.engines.simulator.training import PRECISIONS, Training
from secateur.engines.simulator.workload import Workload
from secateur.report.words import amount, plural, significant, size

SHAPE = "shape:"
AUTO = "auto"
SHOWN_RUNS = 6
"""So many runs of ranks that are alike are shown; `--json` has all."""


@dataclass(frozen=True)
class Simulation:
    """What was predicted, and of what."""

    settings: SimulateSettings
    forecast: Forecast

    def to_json(self) -> dict[str, Any]:
        """The settings, the step, and every run of ranks that are alike."""
        found = self.forecast
        serial, overlapped = found.samples_per_second
        return {
            "settings": asdict(self.settings),
            "mesh": asdict(found.mesh),
            "parameters": found.workload.elements,
            "macs": found.workload.macs,
            "sample": found.workload.sample,
            "compute_s": found.compute_s,
            "step_s": {"no_overlap": found.serial_s, "full_overlap": found.overlapped_s},
            "samples_per_second": {"no_overlap": serial, "full_overlap": overlapped},
            "sent_for_a_plan": {name: round(sent) for name, sent in found.decisions.items()},
            "ranks": [rank.to_json() for rank in found.ranks],
        }

    def print_on(self, console: Console) -> None:
        """As tables and lines."""
        parts: list[RenderableType] = [
            *self._heading(),
            "",
            _rank_table(self.forecast),
            *self._hidden(),
            "",
            *self._time(),
            "",
            *self._assumed(),
        ]
        console.print(Stacked(*parts))

    def _heading(self) -> list[str]:
        found = self.forecast
        work = found.workload
        return [
            f"{work.name}: {amount(work.elements)} parameters, {amount(work.macs)} multiply-"
            f"accumulates for {plural(work.samples, work.sample.removesuffix('s'))} a rank",
            f"{plural(found.mesh.ranks, 'rank')} as {found.mesh}, {self.settings.precision}, "
            f"{self.settings.optimizer}",
        ]

    def _hidden(self) -> list[str]:
        more = len(self.forecast.ranks) - SHOWN_RUNS
        return [f"and {more} more runs of ranks, see --json"] if more > 0 else []

    def _time(self) -> list[str]:
        found = self.forecast
        serial, overlapped = found.samples_per_second
        sample = found.workload.sample
        return [
            f"a step takes {_time(found.overlapped_s)} if all communication overlaps that can, "
            f"{_time(found.serial_s)} if none does; {_time(found.compute_s)} of it is computation",
            f"that is {amount(overlapped)} or {amount(serial)} {sample} a second in all",
            f"a plan takes {size(found.decisions['gradient_scores'])} from each rank where a "
            f"criterion looks at gradients, {size(found.decisions['selection'])} to select",
        ]

    def _assumed(self) -> list[str]:
        own = self.settings
        return [
            f"assumed: {amount(own.macs_per_second)} multiply-accumulates a second, "
            f"{own.host_bandwidth:g} GB/s and {own.host_latency_us:g} us within a host of "
            f"{plural(own.ranks_per_host, 'rank')}, {own.bandwidth:g} GB/s a rank and "
            f"{own.latency_us:g} us between hosts, over {own.backend}",
        ]


def simulate(settings: SimulateSettings) -> Simulation:
    """Predict a step. Raises: ValueError, TraceError, StorageError, EngineError."""
    training = Training(
        precision=PRECISIONS[settings.precision],
        optimizer=settings.optimizer,
        accumulate=settings.accumulate,
        recompute=settings.recompute,
    )
    machine = _machine(settings)
    if settings.parallel == AUTO:
        memory = settings.memory_gib * 2**30
        work = _workload(settings, tp=1)
        found = fastest(work, settings.ranks, machine, memory_bytes=memory, training=training)
    else:
        mesh = parse_mesh(settings.parallel, ranks=settings.ranks)
        found = forecast(_workload(settings, tp=mesh.tp), mesh, machine, training=training)
    return Simulation(settings, found)


def _machine(settings: SimulateSettings) -> Machine:
    return Machine(
        macs_per_second=settings.macs_per_second,
        bandwidth=settings.bandwidth * GB,
        host_bandwidth=settings.host_bandwidth * GB,
        latency_s=settings.latency_us / 1e6,
        host_latency_s=settings.host_latency_us / 1e6,
        ranks_per_host=settings.ranks_per_host,
        transport=TRANSPORTS[settings.backend],
    )


def _workload(settings: SimulateSettings, *, tp: int) -> Workload:
    if settings.model.startswith(SHAPE):
        shape = shape_named(settings.model.removeprefix(SHAPE))
        return shape.workload(sequences=settings.batch_size, length=settings.length)
    from secateur.engines.simulator.loaded import workload_of_model

    loaded = fetch_model(settings)
    inputs, _ = resize_batch(loaded.example_inputs, settings.batch_size)
    return workload_of_model(loaded.model, inputs, name=settings.model, tp=tp)


def _rank_table(found: Forecast) -> Table:
    """What is sent and held, a column for every run of ranks that are alike."""
    shown = found.ranks[:SHOWN_RUNS]
    columns = [_who(rank) for rank in shown]
    rows = table("", *columns, numbers=frozenset(columns))
    for name in PURPOSES:
        if any(rank.sent_bytes[name] for rank in found.ranks):
            sent = [size(rank.sent_bytes[name]) for rank in shown]
            rows.add_row(f"sent a step: {_words(name)}", *sent)
    rows.add_row("sent a step", *[size(rank.total_sent) for rank in shown])
    for field in fields(RankMemory):
        held = [getattr(rank.memory, field.name) for rank in shown]
        rows.add_row(f"memory: {_words(field.name)}", *map(size, held))
    rows.add_row("memory", *[size(rank.memory.total) for rank in shown])
    rows.add_row("written to a checkpoint", *[size(rank.stored_bytes) for rank in shown])
    return rows


def _words(name: str) -> str:
    return name.replace("_", " ")


def _who(rank: RankForecast) -> str:
    if rank.first == rank.last:
        return f"rank {rank.first}"
    return f"ranks {rank.first} to {rank.last}"


def _time(seconds: float) -> str:
    """A duration with a fitting unit.

    >>> _time(0.0123), _time(4.5)
    ('12.3 ms', '4.50 s')
    """
    return f"{significant(seconds)} s" if seconds >= 1 else f"{significant(seconds * 1e3)} ms"
