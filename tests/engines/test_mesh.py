"""Meshes from words, and where ranks stand in them."""

from __future__ import annotations

import pytest

from secateur.engines.mesh import Mesh, parse_mesh
from secateur.engines.simulator.collectives import Transfer
from secateur.engines.simulator.machine import Machine


@pytest.mark.parametrize(
    ("text", "mesh"),
    [
        ("dp=4,tp=2", Mesh(dp=4, tp=2)),
        ("ddp", Mesh(dp=8)),
        ("tp=2, fsdp", Mesh(fsdp=4, tp=2)),
        ("dp=2,fsdp=2,tp=2", Mesh(2, 2, 2)),
    ],
)
def test_words(text: str, mesh: Mesh) -> None:
    assert parse_mesh(text, ranks=8) == mesh


@pytest.mark.parametrize("text", ["pp=2", "dp=2,dp=4", "dp=x", "", "dp=3", "dp=0"])
def test_wrong_words_are_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"ranks|write sizes|at least one"):
        parse_mesh(text, ranks=8)


def test_every_place_is_taken_once() -> None:
    mesh = Mesh(2, 3, 4)
    places = [mesh.place(rank) for rank in range(mesh.ranks)]
    assert len(set(places)) == 24
    assert places[1] == (0, 0, 1)
    assert places[mesh.stride("fsdp")] == (0, 1, 0)
    assert places[mesh.stride("dp")] == (1, 0, 0)


def test_what_leaves_a_host_leaves_it_over_the_cards_of_all_its_ranks() -> None:
    machine = Machine(1.0, bandwidth=1.0, host_bandwidth=100.0, latency_s=0.0, ranks_per_host=4)
    sent = Transfer(1000.0)
    assert machine.seconds(sent, Mesh(dp=4), "dp") == 10.0  # within a host
    assert machine.seconds(sent, Mesh(dp=8), "dp") == 250.0  # over four cards at once
    assert machine.seconds(sent, Mesh(dp=8, tp=4), "dp") == 1000.0  # one card each


def test_latency_counts_hops() -> None:
    machine = Machine(1.0, bandwidth=1.0, host_bandwidth=1.0, latency_s=2.0, ranks_per_host=2)
    assert machine.seconds(Transfer(0.0, hops=5), Mesh(dp=4), "dp") == 10.0


def test_a_machine_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="bandwidth=0"):
        Machine(1.0, bandwidth=0, host_bandwidth=1.0)
