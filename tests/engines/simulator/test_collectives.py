"""What is sent in a collective, by hand and against what must hold for any number of ranks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.engines.simulator.collectives import (
    GLOO,
    NCCL,
    NOTHING,
    SEGMENT_BYTES,
    Transport,
    all_gather,
    all_reduce,
    reduce_scatter,
)

both = pytest.mark.parametrize("transport", [GLOO, NCCL], ids=lambda one: one.name)


@both
def test_one_rank_sends_nothing(transport: Transport) -> None:
    for collective in (all_reduce, all_gather, reduce_scatter):
        assert collective(1000, 1, transport) == NOTHING


@given(ranks=st.integers(2, 64), size=st.integers(4, 10**9))
def test_a_ring_sends_every_byte_twice_less_its_own_share(ranks: int, size: int) -> None:
    sent = all_reduce(size, ranks, NCCL).sent_bytes
    assert sent == pytest.approx(2 * (ranks - 1) / ranks * size)
    parts = all_gather(size / ranks, ranks, NCCL) + reduce_scatter(size / ranks, ranks, NCCL)
    assert parts.sent_bytes == pytest.approx(sent)


def test_small_all_reduces_of_gloo_go_in_at_most_two_segments_a_rank() -> None:
    # one element is one message in each of the 14 hops of 8 ranks, shared evenly among them
    assert all_reduce(4, 8, GLOO).sent_bytes == pytest.approx(14 / 8 * (4 + 144))
    # 400 bytes over 8 ranks: 16 segments of 28 bytes would be 448, so one of them is empty
    assert all_reduce(400, 8, GLOO).sent_bytes == pytest.approx(14 / 8 * (400 + 15 * 144))


def test_large_all_reduces_of_gloo_go_in_segments_of_a_mebibyte() -> None:
    size = 64 * SEGMENT_BYTES
    assert all_reduce(size, 4, GLOO).sent_bytes == pytest.approx(6 / 4 * (size + 64 * 144))


def test_gloo_reduces_everything_to_scatter_it() -> None:
    assert reduce_scatter(1e6, 4, GLOO) == all_reduce(4e6, 4, GLOO)
    assert reduce_scatter(1e6, 4, NCCL).sent_bytes == 3e6


def test_hops_grow_with_the_ring_and_slowly_with_the_tree() -> None:
    assert all_reduce(1e6, 64, GLOO).hops == 126
    assert all_reduce(1e6, 64, NCCL).hops == 12
