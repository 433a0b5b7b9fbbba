"""What ranks send to decide what goes: once for each plan, whatever the training sends after it."""

from __future__ import annotations

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.collectives import Transfer, Transport, all_reduce
from secateur.engines.simulator.workload import Workload

LIMB_BYTES, LIMBS = 8, 2
"""An exact sum of float32 numbers travels as two integers of 64 bits for each of them."""
SELECTION_BYTES, SELECTION_ROUNDS = 20_000, 24
"""What a threshold over all shards takes, of any model: counts in a few rounds. Measured by
`benchmarks/sharded_selection.py`, whose page has it for 362 million weights."""


def decisions(workload: Workload, mesh: Mesh, transport: Transport) -> dict[str, Transfer]:
    """What every rank sends for a plan, by purpose.

    gradient_scores: the mean gradient of every parameter, for the criteria that look at it; those
    of weights alone send nothing. selection: one threshold over parameters that lie on many ranks;
    where every rank has all scores nothing is sent.
    """
    elements = sum(
        weight.on_rank(mesh.tp).elements * count
        for weight, count in workload.weights()
        if weight.trainable
    )
    counts = all_reduce(SELECTION_BYTES / SELECTION_ROUNDS, mesh.ranks, transport)
    return {
        "gradient_scores": all_reduce(elements * LIMBS * LIMB_BYTES, mesh.batches, transport),
        "selection": counts.times(SELECTION_ROUNDS if mesh.fsdp * mesh.tp > 1 else 0),
    }
