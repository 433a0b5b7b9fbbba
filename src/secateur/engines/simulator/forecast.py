"""The whole prediction of a step: for every rank its bytes, its time and its memory.

Time is given between two bounds, for how much of the communication hides behind computation is an
assumption: none of it, or all of what can (gradients behind the backward, gathered weights behind
the computation of the unit before). What the next operator waits for never hides: activations that
tensor parallelism adds up, statistics of batch norm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.deciding import decisions
from secateur.engines.simulator.machine import Machine
from secateur.engines.simulator.memory import RankMemory, rank_memory
from secateur.engines.simulator.traffic import PURPOSES, step_traffic
from secateur.engines.simulator.training import STATES, Training
from secateur.engines.simulator.workload import FLOAT, Weight, Workload

HIDES = frozenset({"dp", "fsdp"})
"""Mesh dims whose communication can run beside computation."""


@dataclass(frozen=True, slots=True)
class RankForecast:
    """Ranks `first` to `last`, which are alike. sent_bytes: in a step, by purpose. stored_bytes:
    of its part of a checkpoint, with the optimizer's state."""

    first: int
    last: int
    sent_bytes: dict[str, float]
    seconds: dict[str, float]
    memory: RankMemory
    stored_bytes: int

    @property
    def total_sent(self) -> float:
        """Bytes a step."""
        return sum(self.sent_bytes.values())

    def to_json(self) -> dict[str, Any]:
        """The fields, and what they add up to."""
        return {
            "ranks": [self.first, self.last],
            "sent_bytes": {name: round(size) for name, size in self.sent_bytes.items()},
            "sent_bytes_total": round(self.total_sent),
            "seconds": self.seconds,
            "memory_bytes": self.memory.to_json(),
            "checkpoint_bytes": self.stored_bytes,
        }


@dataclass(frozen=True, slots=True)
class Forecast:
    """compute_s: of one rank. serial_s: a step if nothing overlaps; overlapped_s: if all does that
    can. ranks: runs of ranks that are alike, in order. decisions: bytes that each sends once for a
    plan."""

    workload: Workload
    mesh: Mesh
    machine: Machine
    training: Training
    compute_s: float
    serial_s: float
    overlapped_s: float
    ranks: tuple[RankForecast, ...]
    decisions: dict[str, float]

    @property
    def samples_per_second(self) -> tuple[float, float]:
        """Of all ranks together, without and with overlap."""
        samples = self.workload.samples * self.mesh.batches * self.training.accumulate
        return samples / self.serial_s, samples / self.overlapped_s

    @property
    def most_memory(self) -> int:
        """Bytes of the rank that needs most."""
        return max(rank.memory.total for rank in self.ranks)

    @property
    def most_sent(self) -> float:
        """Bytes a step of the rank that sends most."""
        return max(rank.total_sent for rank in self.ranks)


def forecast(
    workload: Workload, mesh: Mesh, machine: Machine, *, training: Training | None = None
) -> Forecast:
    """What a step of a workload is on a mesh of a machine's ranks."""
    training = training or Training()
    ranks = tuple(_ranks(workload, mesh, machine, training))
    compute = _compute(workload, mesh, machine, training)
    hidden, open_ = 0.0, 0.0
    for purpose, seconds in _slowest(ranks).items():
        if PURPOSES[purpose] in HIDES:
            hidden += seconds
        else:
            open_ += seconds
    return Forecast(
        workload=workload,
        mesh=mesh,
        machine=machine,
        training=training,
        compute_s=compute,
        serial_s=compute + hidden + open_,
        overlapped_s=max(compute, hidden) + open_,
        ranks=ranks,
        decisions={
            name: transfer.sent_bytes
            for name, transfer in decisions(workload, mesh, machine.transport).items()
        },
    )


def _compute(workload: Workload, mesh: Mesh, machine: Machine, training: Training) -> float:
    """A backward is twice a forward; recomputation is one forward more, except for the last unit,
    whose activations are kept."""
    macs = 0.0
    for index, (unit, count) in enumerate(workload.units):
        passes = 4 if training.recompute and index < len(workload.units) - 1 else 3
        own = unit.macs - unit.tp_macs + unit.tp_macs / mesh.tp
        macs += passes * own * count
    return macs * training.accumulate / machine.macs_per_second


def _slowest(ranks: tuple[RankForecast, ...]) -> dict[str, float]:
    """Seconds by purpose of whichever rank takes longest."""
    return {name: max(rank.seconds[name] for rank in ranks) for name in PURPOSES}


def _ranks(
    workload: Workload, mesh: Mesh, machine: Machine, training: Training
) -> Iterator[RankForecast]:
    """One value for each run of ranks that are alike."""
    known: dict[Any, RankForecast] = {}
    kinds = _kinds(workload, mesh)
    for kind, run in groupby(range(mesh.ranks), key=kinds.__getitem__):
        first, *rest = run
        if kind not in known:
            known[kind] = _rank(workload, mesh, machine, training, first)
        yield replace(known[kind], first=first, last=rest[-1] if rest else first)


def _kinds(workload: Workload, mesh: Mesh) -> list[Any]:
    """For each rank a value, equal for ranks of which everything is the same: the rows they hold
    of parameters of each length."""
    places = [mesh.place(rank) for rank in range(mesh.ranks)]
    lengths = sorted({weight.on_rank(mesh.tp).rows for weight, _ in workload.weights()})
    held = [
        tuple(Weight(rows).rows_of(shard, mesh.fsdp) for rows in lengths)
        for shard in range(mesh.fsdp)
    ]
    return [held[shard] for _, shard, _ in places]


def _rank(
    workload: Workload, mesh: Mesh, machine: Machine, training: Training, rank: int
) -> RankForecast:
    traffic = step_traffic(workload, mesh, training=training, transport=machine.transport)
    memory = rank_memory(workload, mesh, training=training, rank=rank)
    return RankForecast(
        rank,
        rank,
        sent_bytes={name: transfer.sent_bytes for name, transfer in traffic.items()},
        seconds={
            name: machine.seconds(transfer, mesh, PURPOSES[name])
            for name, transfer in traffic.items()
        },
        memory=memory,
        stored_bytes=_stored(workload, mesh, training, rank),
    )


def _stored(workload: Workload, mesh: Mesh, training: Training, rank: int) -> int:
    """Replicas share the writing evenly; shards write their rows."""
    _, shard, _ = mesh.place(rank)
    size = 0
    for weight, count in workload.weights():
        own = weight.on_rank(mesh.tp)
        rows = own.count * own.rows_of(shard, mesh.fsdp) * own.columns * count
        states = STATES[training.optimizer] if own.trainable else 0
        size += rows * (training.precision.weights + states * FLOAT)
    return size // mesh.dp
