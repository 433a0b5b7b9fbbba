"""Which mesh to take: the fastest of those whose ranks have the memory."""

from __future__ import annotations

from collections.abc import Iterator

from secateur.core.errors import EngineError
from secateur.engines.mesh import Mesh
from secateur.engines.simulator.forecast import Forecast, forecast
from secateur.engines.simulator.machine import Machine
from secateur.engines.simulator.training import Training
from secateur.engines.simulator.workload import Workload


def meshes(ranks: int, *, largest_tp: int) -> Iterator[Mesh]:
    """Every mesh of so many ranks whose tensor-parallel ranks are at most `largest_tp`.

    >>> [str(mesh) for mesh in meshes(4, largest_tp=2)]
    ['dp=4', 'dp=2,fsdp=2', 'fsdp=4', 'dp=2,tp=2', 'fsdp=2,tp=2']
    """
    for tp in _divisors(ranks):
        if tp <= largest_tp:
            for fsdp in _divisors(ranks // tp):
                yield Mesh(dp=ranks // tp // fsdp, fsdp=fsdp, tp=tp)


def fastest(
    workload: Workload,
    ranks: int,
    machine: Machine,
    *,
    memory_bytes: float,
    training: Training | None = None,
) -> Forecast:
    """The mesh of the shortest step, half way between its bounds, among those that fit.

    Tensor parallelism stays within a host, and is tried only for a workload that says what it
    splits. Raises: EngineError that says what the smallest one needs.
    """
    splits = any(unit.tp_macs for unit, _ in workload.units)
    largest = machine.ranks_per_host if splits else 1
    found = [
        forecast(workload, mesh, machine, training=training)
        for mesh in meshes(ranks, largest_tp=largest)
    ]
    fitting = [one for one in found if one.most_memory <= memory_bytes]
    if not fitting:
        least = min(found, key=lambda one: one.most_memory)
        raise EngineError(
            f"{workload.name} does not fit {ranks} ranks of {memory_bytes / 2**30:.4g} GiB: the "
            f"mesh that needs least, {least.mesh}, takes {least.most_memory / 2**30:.4g} GiB a "
            "rank; use more ranks, a smaller batch, or recompute activations"
        )
    return min(fitting, key=lambda one: (one.serial_s + one.overlapped_s, one.mesh.tp))


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]
