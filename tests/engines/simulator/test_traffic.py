"""Bytes of a step by purpose, on workloads small enough for a pencil."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.collectives import NCCL, all_reduce
from secateur.engines.simulator.shapes import SHAPES
from secateur.engines.simulator.traffic import step_traffic
from secateur.engines.simulator.training import PRECISIONS, Training
from secateur.engines.simulator.workload import Unit, Weight, Workload

BLOCK = Unit("block", (Weight(10, 6), Weight(10)), forward_reduced=(100,), backward_reduced=(50,))
REST = Unit("the rest", (Weight(3, 4), Weight(5, 2, trainable=False)))
WORK = Workload("work", ((BLOCK, 2), (REST, 1)))
"""Two blocks of 70 parameters and 12 more that train, 10 that don't."""


def sent(mesh: Mesh, training: Training | None = None, work: Workload = WORK) -> dict[str, float]:
    """Bytes by purpose, of what is sent for at all, without the losses."""
    traffic = step_traffic(work, mesh, training=training or Training(), transport=NCCL)
    assert traffic["losses"] == all_reduce(8, mesh.batches, NCCL)
    return {
        name: each.sent_bytes
        for name, each in traffic.items()
        if each.sent_bytes and name != "losses"
    }


def total(work: Workload, mesh: Mesh) -> float:
    """Bytes for all purposes."""
    return sum(sent(mesh, work=work).values())


def test_one_rank_sends_nothing() -> None:
    assert sent(Mesh()) == {}


def test_ddp_sends_gradients_of_what_trains() -> None:
    assert sent(Mesh(dp=4)) == {"gradients": 2 * 3 / 4 * 152 * 4}


def test_gradients_are_sent_once_for_several_batches() -> None:
    training = Training(accumulate=3)
    assert sent(Mesh(dp=2), training) == {"gradients": 152 * 4}
    one, three = sent(Mesh(fsdp=2)), sent(Mesh(fsdp=2), training)
    assert three["gradients_scattered"] == one["gradients_scattered"]
    assert three["weights_forward"] == 3 * one["weights_forward"]


def test_batch_norm_sends_its_sums_both_ways() -> None:
    norm = Workload("norm", ((Unit("all", (), batch_norms=(16, 4)), 1),))
    bytes_each_way = 8 * (1 + 2 * 16 + 1 + 2 * 4), 8 * (2 * 16 + 2 * 4)
    assert sent(Mesh(dp=2), work=norm) == {"batch_norm": sum(bytes_each_way)}
    assert sent(Mesh(dp=2), Training(sync_batch_norm=False), norm) == {}


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
    work = replace(WORK, units=((replace(BLOCK, weights=split), 2),))
    assert sent(Mesh(dp=2, tp=2), work=work)["gradients"] == 70 * 4


def test_more_fsdp_ranks_than_rows_cost_more_than_the_weights() -> None:
    """The narrow keys and values of a Llama, shared by rows among 512 ranks."""
    work = SHAPES["llama-3-8b"].workload()
    few, many = (total(work, Mesh(fsdp=fsdp, tp=8)) for fsdp in (64, 512))
    assert many > 1.02 * few
    assert few == pytest.approx(total(work, Mesh(fsdp=32, tp=8)), rel=0.03)
