"""The whole prediction: bounds of time, runs of ranks, the choice of a mesh."""

from __future__ import annotations

import math

import pytest

from secateur.core.errors import EngineError
from secateur.engines.mesh import Mesh
from secateur.engines.simulator.choosing import fastest, meshes
from secateur.engines.simulator.forecast import forecast
from secateur.engines.simulator.machine import H100, LOOPBACK, Machine
from secateur.engines.simulator.shapes import SHAPES
from secateur.engines.simulator.training import PRECISIONS, Training
from secateur.engines.simulator.workload import Unit, Weight, Workload


def small(rows: int = 10) -> Workload:
    """One unit of `rows` rows, a billion multiply-accumulates and a batch norm."""
    unit = Unit("all", (Weight(rows, 4),), macs=10**9, batch_norms=(3,))
    return Workload("small", ((unit, 1),))


def test_a_step_lies_between_its_bounds() -> None:
    machine = Machine(3e9, bandwidth=80.0, host_bandwidth=80.0, latency_s=0.0, host_latency_s=0.0)
    found = forecast(small(), Mesh(dp=2), machine)
    gradients, others = 160 / 80, (8 * (7 + 6) + 8) / 80
    assert found.compute_s == pytest.approx(1.0)
    assert found.serial_s == pytest.approx(1.0 + gradients + others)
    assert found.overlapped_s == pytest.approx(gradients + others)
    assert found.samples_per_second == pytest.approx((2 / found.serial_s, 2 / found.overlapped_s))


def test_recomputation_is_a_third_more_of_all_but_the_last_unit() -> None:
    work = SHAPES["llama-3-8b"].workload()
    plain, again = (
        forecast(work, Mesh(), H100, training=Training(recompute=recompute)).compute_s
        for recompute in (False, True)
    )
    head = 4096 * 128256 * 4096 * 3 / H100.macs_per_second
    assert again - head == pytest.approx((plain - head) * 4 / 3)


def test_ranks_that_are_alike_are_told_once() -> None:
    runs = forecast(small(rows=10), Mesh(fsdp=4, tp=2), LOOPBACK).ranks
    # 10 rows over 4: three ranks of 3 and one of 1, each of them twice
    assert [(run.first, run.last) for run in runs] == [(0, 5), (6, 7)]
    assert [run.memory.gradients for run in runs] == [3 * 4 * 4, 1 * 4 * 4]


def test_all_ranks_together_write_everything_once() -> None:
    runs = forecast(small(), Mesh(fsdp=4), H100, training=Training(optimizer="adamw")).ranks
    written = sum(run.stored_bytes * (run.last - run.first + 1) for run in runs)
    assert written == 10 * 4 * (4 + 8)


def test_every_mesh_is_tried_once() -> None:
    found = list(meshes(16, largest_tp=4))
    assert len(found) == len(set(found)) == 5 + 4 + 3
    assert all(mesh.ranks == 16 and mesh.tp <= 4 for mesh in found)


def test_the_chosen_mesh_fits_and_none_that_fits_is_faster() -> None:
    work = SHAPES["llama-3-70b"].workload()
    training = Training(PRECISIONS["bfloat16-gathered"], "adamw", recompute=True)
    best = fastest(work, 64, H100, memory_bytes=80e9, training=training)
    assert best.most_memory <= 80e9
    for mesh in meshes(64, largest_tp=8):
        other = forecast(work, mesh, H100, training=training)
        both = other.serial_s + other.overlapped_s
        assert other.most_memory > 80e9 or both >= best.serial_s + best.overlapped_s


def test_what_fits_nowhere_says_what_it_needs() -> None:
    with pytest.raises(EngineError, match=r"GiB a rank; use more ranks"):
        fastest(SHAPES["kimi-k2"].workload(), 8, H100, memory_bytes=80e9)


def test_four_thousand_ranks_are_arithmetic() -> None:
    found = forecast(SHAPES["llama-3-405b"].workload(), Mesh(8, 64, 8), H100)
    assert sum(run.last - run.first + 1 for run in found.ranks) == 4096
    assert math.isfinite(found.serial_s)
