"""Memory of one rank at the worst moment of a step: the backward of the largest unit.

What is counted: weights, gradients, optimizer state, buffers, activations kept for the backward,
and what FSDP2 holds on the way (gathered weights, flat buffers). What is not: what a kernel
takes to work in, dropout's masks, the allocator's rounding, the library's own few hundred MiB.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.training import STATES, Training
from secateur.engines.simulator.workload import FLOAT, Unit, Workload


@dataclass(frozen=True, slots=True)
class RankMemory:
    """Bytes. in_flight: weights that are gathered, gradients that are not yet scattered, and the
    copies of weights that autocast makes. DDP's buckets are the gradients themselves.

    >>> RankMemory(4, 4, 8, 0, 100, 10).total
    126
    """

    weights: int
    gradients: int
    optimizer: int
    buffers: int
    activations: int
    in_flight: int

    @property
    def total(self) -> int:
        """All of it."""
        return sum(asdict(self).values())

    def to_json(self) -> dict[str, Any]:
        """The fields and the total."""
        return asdict(self) | {"total": self.total}


def rank_memory(workload: Workload, mesh: Mesh, *, training: Training, rank: int) -> RankMemory:
    """What rank `rank` needs: ranks with fewer rows have less state, and the same padding."""
    _, shard, _ = mesh.place(rank)
    precision = training.precision
    stored = trained = 0
    for weight, count in workload.weights():
        own = weight.on_rank(mesh.tp)
        stored += own.padded_part(mesh.fsdp) * count
        if own.trainable:
            trained += own.count * own.rows_of(shard, mesh.fsdp) * own.columns * count
    return RankMemory(
        weights=stored * precision.weights,
        gradients=trained * precision.weights,
        optimizer=trained * STATES[training.optimizer] * FLOAT,
        buffers=workload.buffers,
        activations=_activations(workload, mesh, training),
        in_flight=_in_flight(workload, mesh, training),
    )


def _activations(workload: Workload, mesh: Mesh, training: Training) -> int:
    """Kept for the backward; with recomputation the inputs of all units and one unit's own."""
    item = training.precision.activations
    kept = [(_kept(unit, mesh.tp, item), count) for unit, count in workload.units]
    if not training.recompute:
        return sum(size * count for size, count in kept)
    *inner, (outermost, _) = kept
    entries = sum(unit.entry_elements * item * count for unit, count in workload.units[:-1])
    return entries + outermost + max((size for size, _ in inner), default=0)


def _kept(unit: Unit, tp: int, item: int) -> int:
    elements = unit.kept_elements - unit.tp_kept_elements + unit.tp_kept_elements // tp
    return elements * item + unit.kept_bytes - unit.tp_kept_bytes + unit.tp_kept_bytes // tp


def _in_flight(workload: Workload, mesh: Mesh, training: Training) -> int:
    """Autocast's copies stay for the backward."""
    elements = [_elements(unit, mesh.tp) for unit, _ in workload.units]
    every = sum(n * count for n, (_, count) in zip(elements, workload.units, strict=True))
    copies = every * training.precision.copies
    if mesh.fsdp > 1:
        return copies + _gathered(elements, training)
    return copies


def _gathered(elements: list[int], training: Training) -> int:
    """FSDP2's share: the outermost unit's weights stay. In the backward of the largest other one
    there are its weights, the next one's with the flat buffer they came in, its gradients and the
    flat buffer they leave in; at the end the outermost unit's own gradients, likewise."""
    gathered, reduced = training.precision.gathered, training.precision.reduced
    *inner, outermost = elements
    largest = max(inner, default=0)
    within = largest * (3 * gathered + gathered + reduced)
    return outermost * gathered + max(within, outermost * (gathered + reduced))


def _elements(unit: Unit, tp: int) -> int:
    return sum(weight.on_rank(tp).elements for weight in unit.weights)
