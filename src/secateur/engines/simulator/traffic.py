"""Bytes that a rank sends in a step, by what for.

DDP adds gradients up over `dp`, bucket by bucket, and hands its buffers on before each forward.
FSDP2 gathers a unit's weights for its forward and again for its backward, except for the outermost
unit, and scatters its gradients, rows filled up to equal chunks; where there are replicas as well,
each rank's part is added up over them. Tensor parallelism adds up activations where slices meet,
and their gradients where they part.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

from secateur.engines.simulator.collectives import (
    NOTHING,
    Transfer,
    Transport,
    all_gather,
    all_reduce,
    broadcast,
    reduce_scatter,
)
from secateur.engines.simulator.mesh import Mesh
from secateur.engines.simulator.training import Training
from secateur.engines.simulator.workload import FLOAT, Unit, Workload

BUCKET_BYTES = 25 << 20
"""DDP's bucket; the first is smaller, which only latency knows."""

PURPOSES = {
    "gradients": "dp",
    "buffers": "dp",
    "weights_forward": "fsdp",
    "weights_backward": "fsdp",
    "gradients_scattered": "fsdp",
    "activations": "tp",
    "activation_gradients": "tp",
}
"""What is sent for, and along which mesh dim."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one rank sends in one optimizer step, by purpose."""

    by_purpose: Mapping[str, Transfer]

    @property
    def sent_bytes(self) -> float:
        """All of it."""
        return sum(transfer.sent_bytes for transfer in self.by_purpose.values())


def step_traffic(
    workload: Workload,
    mesh: Mesh,
    *,
    training: Training,
    transport: Transport,
    rank: int = 0,
) -> Traffic:
    """What rank `rank` sends in a step; ranks differ in the buffers only."""
    found: dict[str, Transfer] = dict.fromkeys(PURPOSES, NOTHING)
    last = len(workload.units) - 1
    for index, (unit, count) in enumerate(workload.units):
        for purpose, transfer in _of_unit(unit, mesh, training, transport, index == last):
            found[purpose] += transfer.times(count * training.accumulate)
    if mesh.dp > 1:
        found["gradients"] = _gradients(workload, mesh, training, transport)
        if mesh.fsdp == 1 and training.broadcast_buffers:
            dp, _, _ = mesh.place(rank)
            sent = [broadcast(size, mesh.dp, transport, rank=dp) for size in workload.buffers]
            found["buffers"] = reduce(Transfer.__add__, sent, NOTHING).times(training.accumulate)
    return Traffic(found)


def _of_unit(
    unit: Unit, mesh: Mesh, training: Training, transport: Transport, outermost: bool
) -> list[tuple[str, Transfer]]:
    own = [weight.on_rank(mesh.tp) for weight in unit.weights]
    part = sum(weight.padded_part(mesh.fsdp) for weight in own)
    trained = sum(weight.padded_part(mesh.fsdp) for weight in own if weight.trainable)
    gathered = all_gather(part * training.precision.gathered, mesh.fsdp, transport)
    again = training.reshard and not outermost
    scattered = reduce_scatter(trained * training.precision.reduced, mesh.fsdp, transport)
    item = training.precision.activations
    forward = [all_reduce(n * item, mesh.tp, transport) for n in unit.forward_reduced]
    backward = [all_reduce(n * item, mesh.tp, transport) for n in unit.backward_reduced]
    joined = reduce(Transfer.__add__, forward, NOTHING)
    return [
        ("weights_forward", gathered),
        ("weights_backward", gathered if again else NOTHING),
        ("gradients_scattered", scattered),
        ("activations", joined.times(2) if training.recompute else joined),
        ("activation_gradients", reduce(Transfer.__add__, backward, NOTHING)),
    ]


def _gradients(
    workload: Workload, mesh: Mesh, training: Training, transport: Transport
) -> Transfer:
    """Under DDP in buckets and once for all batches; over replicas of shards unit by unit."""
    if mesh.fsdp == 1:
        elements = sum(
            weight.on_rank(mesh.tp).elements * count
            for weight, count in workload.weights()
            if weight.trainable
        )
        size = elements * FLOAT
        buckets, rest = divmod(size, BUCKET_BYTES)
        whole = all_reduce(BUCKET_BYTES, mesh.dp, transport).times(buckets)
        return whole + all_reduce(rest, mesh.dp, transport)
    found = NOTHING
    for unit, count in workload.units:
        own = [weight.on_rank(mesh.tp) for weight in unit.weights if weight.trainable]
        part = sum(weight.padded_part(mesh.fsdp) for weight in own)
        sent = all_reduce(part * training.precision.reduced, mesh.dp, transport)
        found += sent.times(count * training.accumulate)
    return found
