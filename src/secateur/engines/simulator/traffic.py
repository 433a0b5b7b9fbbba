"""Bytes that a rank sends in a step, by what for.

DDP adds gradients up over `dp`, bucket by bucket. FSDP2 gathers a unit's weights for its forward
and again for its backward, except for the outermost unit, and scatters its gradients, rows filled
up to equal chunks; where there are replicas as well, each rank's part is added up over them.
Gradients are sent with the last batch of a step. Tensor parallelism adds up activations where
slices meet, and their gradients where they part. Batch norm shares its statistics.
"""

from __future__ import annotations

from functools import reduce

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.collectives import (
    NOTHING,
    Transfer,
    Transport,
    all_gather,
    all_reduce,
    reduce_scatter,
)
from secateur.engines.simulator.training import Training
from secateur.engines.simulator.workload import FLOAT, Unit, Workload

BUCKET_BYTES = 25 << 20
"""DDP's bucket; the first is smaller, which only latency knows."""
DOUBLE = 8
"""Bytes of an element of what is added up exactly: losses, statistics of batch norm."""

PURPOSES = {
    "gradients": "dp",
    "weights_forward": "fsdp",
    "weights_backward": "fsdp",
    "gradients_scattered": "fsdp",
    "activations": "tp",
    "activation_gradients": "tp",
    "batch_norm": "batches",
    "losses": "batches",
}
"""What is sent for, and along which mesh dim; all ranks with batches of their own are one."""


def step_traffic(
    workload: Workload, mesh: Mesh, *, training: Training, transport: Transport
) -> dict[str, Transfer]:
    """What every rank sends in an optimizer step, by purpose."""
    found: dict[str, Transfer] = dict.fromkeys(PURPOSES, NOTHING)
    last = len(workload.units) - 1
    for index, (unit, count) in enumerate(workload.units):
        for purpose, transfer in _of_unit(unit, mesh, training, transport, index == last):
            found[purpose] += transfer.times(count)
    if mesh.dp > 1:
        found["gradients"] = _gradients(workload, mesh, training, transport)
    found["losses"] = all_reduce(DOUBLE, mesh.batches, transport)
    return found


def _of_unit(
    unit: Unit, mesh: Mesh, training: Training, transport: Transport, outermost: bool
) -> list[tuple[str, Transfer]]:
    own = [weight.on_rank(mesh.tp) for weight in unit.weights]
    part = sum(weight.padded_part(mesh.fsdp) for weight in own)
    trained = sum(weight.padded_part(mesh.fsdp) for weight in own if weight.trainable)
    gathered = all_gather(part * training.precision.gathered, mesh.fsdp, transport)
    again = gathered if training.reshard and not outermost else NOTHING
    scattered = reduce_scatter(trained * training.precision.reduced, mesh.fsdp, transport)
    item = training.precision.activations
    forward = [all_reduce(n * item, mesh.tp, transport) for n in unit.forward_reduced]
    backward = [all_reduce(n * item, mesh.tp, transport) for n in unit.backward_reduced]
    joined = reduce(Transfer.__add__, forward, NOTHING).times(2 if training.recompute else 1)
    entered = reduce(Transfer.__add__, backward, NOTHING)
    norms = _batch_norm(unit, mesh, training, transport)
    return [
        ("weights_forward", gathered.times(training.accumulate)),
        ("weights_backward", again.times(training.accumulate)),
        ("gradients_scattered", scattered),
        ("activations", joined.times(training.accumulate)),
        ("activation_gradients", entered.times(training.accumulate)),
        ("batch_norm", norms.times(training.accumulate)),
    ]


def _batch_norm(unit: Unit, mesh: Mesh, training: Training, transport: Transport) -> Transfer:
    """Forward the count and two sums a channel, backward two sums a channel, in float64."""
    found = NOTHING
    for channels in unit.batch_norms if training.sync_batch_norm else ():
        found += all_reduce((1 + 2 * channels) * DOUBLE, mesh.batches, transport)
        found += all_reduce(2 * channels * DOUBLE, mesh.batches, transport)
    return found


def _gradients(
    workload: Workload, mesh: Mesh, training: Training, transport: Transport
) -> Transfer:
    """Under DDP in buckets, over replicas of shards unit by unit; once for all batches."""
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
        found += sent.times(count)
    return found
