"""Memory of a rank, by hand, and what must hold of it."""

from __future__ import annotations

import pytest

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.memory import RankMemory, rank_memory
from secateur.engines.simulator.shapes import SHAPES
from secateur.engines.simulator.training import PRECISIONS, Training
from secateur.engines.simulator.workload import Unit, Weight, Workload

BLOCK = Unit("block", (Weight(10, 6),), kept_elements=100, kept_bytes=8, entry_elements=20)
REST = Unit("the rest", (Weight(3, 4), Weight(5, 2, trainable=False)), kept_elements=30)
WORK = Workload("work", ((BLOCK, 2), (REST, 1)), buffers=40)


def memory(mesh: Mesh, training: Training | None = None, rank: int = 0) -> RankMemory:
    return rank_memory(WORK, mesh, training=training or Training(), rank=rank)


def test_one_rank_has_it_all() -> None:
    assert memory(Mesh(), Training(optimizer="adamw")) == RankMemory(
        weights=142 * 4,
        gradients=132 * 4,
        optimizer=132 * 8,
        buffers=40,
        activations=2 * (400 + 8) + 120,
        in_flight=0,
    )


def test_replicas_have_it_all_too() -> None:
    assert memory(Mesh(dp=8)) == memory(Mesh())


def test_shards_are_filled_up_and_state_is_not() -> None:
    first, last = memory(Mesh(fsdp=4)), memory(Mesh(fsdp=4), rank=3)
    padded = 2 * 3 * 6 + 1 * 4 + 2 * 2
    assert first.weights == last.weights == padded * 4
    assert first.gradients == (2 * 3 * 6 + 1 * 4) * 4
    assert last.gradients == (2 * 1 * 6 + 0) * 4


def test_recomputation_keeps_inputs_and_one_unit() -> None:
    found = memory(Mesh(), Training(recompute=True)).activations
    assert found == 2 * 20 * 4 + (400 + 8) + 120


def test_autocast_halves_activations_and_copies_weights() -> None:
    full, half = memory(Mesh()), memory(Mesh(), Training(PRECISIONS["bfloat16"]))
    assert half.activations == (full.activations - 16) // 2 + 16
    assert half.weights == full.weights
    assert half.in_flight == 142 * 2


@pytest.mark.parametrize("name", ["llama-3-8b", "kimi-k2"])
def test_more_ranks_never_need_more_state(name: str) -> None:
    work = SHAPES[name].workload()
    states = []
    for fsdp in (1, 2, 4, 8, 16, 32):
        found = rank_memory(work, Mesh(fsdp=fsdp), training=Training(), rank=0)
        states.append(found.weights + found.gradients + found.optimizer)
    assert states == sorted(states, reverse=True)
    assert states[-1] == pytest.approx(states[0] / 32, rel=0.01)
