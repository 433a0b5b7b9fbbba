"""Bytes of a step by purpose, on workloads small enough for a pencil."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.engines.simulator.collectives import NCCL
from secateur.engines.simulator.mesh import Mesh
from secateur.engines.simulator.shapes import SHAPES
from secateur.engines.simulator.traffic import step_traffic
from secateur.engines.simulator.training import PRECISIONS, Training
from secateur.engines.simulator.workload import Unit, Weight, Workload

BLOCK = Unit("block", (Weight(10, 6), Weight(10)), forward_reduced=(100,), backward_reduced=(50,))
REST = Unit("the rest", (Weight(3, 4), Weight(5, 2, trainable=False)))
WORK = Workload("work", ((BLOCK, 2), (REST, 1)), buffers=(40,))
"""Two blocks of 70 parameters and 12 more that train, 10 that don't."""


def sent(mesh: Mesh, training: Training | None = None, rank: int = 0) -> dict[str, float]:
    """Bytes by purpose, of what is sent for at all."""
    traffic = step_traffic(
        WORK, mesh, training=training or Training(), transport=NCCL, rank=rank
    ).by_purpose
    return {name: each.sent_bytes for name, each in traffic.items() if each.sent_bytes}


def test_one_rank_sends_nothing() -> None:
    assert sent(Mesh()) == {}


def test_ddp_sends_gradients_of_what_trains_and_buffers() -> None:
    assert sent(Mesh(dp=4)) == {"gradients": 2 * 3 / 4 * 152 * 4, "buffers": 40}
    assert sent(Mesh(dp=4), rank=3) == {"gradients": 2 * 3 / 4 * 152 * 4}


def test_ddp_sends_gradients_once_for_several_batches() -> None:
    found = sent(Mesh(dp=2), Training(accumulate=3))
    assert found == {"gradients": 152 * 4, "buffers": 120}


def test_fsdp_fills_rows_up_and_gathers_the_outermost_unit_once() -> None:
    # over 4 ranks 10 rows are chunks of 3, 3 rows chunks of 1, 5 rows chunks of 2
    block, rest, frozen = 3 * 6 + 3, 1 * 4, 2 * 2
    assert sent(Mesh(fsdp=4)) == {
        "weights_forward": 3 * 4 * (2 * block + rest + frozen),
        "weights_backward": 3 * 4 * 2 * block,
        "gradients_scattered": 3 * 4 * (2 * block + rest),
    }


def test_fsdp_may_keep_what_it_gathered() -> None:
    assert "weights_backward" not in sent(Mesh(fsdp=4), Training(reshard=False))


def test_replicas_of_shards_add_up_their_parts() -> None:
    found = sent(Mesh(dp=2, fsdp=2))
    block, rest = 5 * 6 + 5, 2 * 4
    assert found["gradients"] == 4 * (2 * block + rest)
    assert "buffers" not in found


def test_weights_in_bfloat16_are_half_as_many_bytes() -> None:
    full, half = sent(Mesh(fsdp=2)), sent(Mesh(fsdp=2), Training(PRECISIONS["bfloat16-gathered"]))
    assert half["weights_forward"] == full["weights_forward"] / 2
    assert half["gradients_scattered"] == full["gradients_scattered"]


def test_tensor_parallel_ranks_add_activations_up() -> None:
    assert sent(Mesh(tp=2)) == {"activations": 2 * 100 * 4, "activation_gradients": 2 * 50 * 4}
    again = sent(Mesh(tp=2), Training(recompute=True))
    assert again == {"activations": 4 * 100 * 4, "activation_gradients": 2 * 50 * 4}


def test_tensor_parallelism_splits_what_ddp_sends() -> None:
    split = tuple(replace(weight, split="rows") for weight in BLOCK.weights)
    work = replace(WORK, units=((replace(BLOCK, weights=split), 2),), buffers=())
    traffic = step_traffic(work, Mesh(dp=2, tp=2), training=Training(), transport=NCCL)
    assert traffic.by_purpose["gradients"].sent_bytes == 70 * 4


def test_more_fsdp_ranks_than_rows_cost_more_than_the_weights() -> None:
    """The narrow keys and values of a Llama, shared by rows among 512 ranks."""
    work = SHAPES["llama-3-8b"].workload()
    few = step_traffic(work, Mesh(fsdp=64, tp=8), training=Training(), transport=NCCL)
    many = step_traffic(work, Mesh(fsdp=512, tp=8), training=Training(), transport=NCCL)
    assert many.sent_bytes > 1.02 * few.sent_bytes
    assert few.sent_bytes == pytest.approx(
        step_traffic(work, Mesh(fsdp=32, tp=8), training=Training(), transport=NCCL).sent_bytes,
        rel=0.03,
    )
