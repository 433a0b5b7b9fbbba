"""Rows go where they are wanted, and no others."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from threads import ThreadWorld, on_ranks

from secateur.engines.redistribute import move_rows, route


@st.composite
def _shares(draw: st.DrawFn) -> tuple[list[list[int]], list[list[int]], int]:
    """What each of some ranks holds (together everything, some of it twice) and wants."""
    ranks, rows = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    owners = draw(st.lists(st.integers(0, ranks - 1), min_size=rows, max_size=rows))
    some = st.sets(st.integers(0, rows - 1), max_size=rows)
    held = [
        sorted({row for row in range(rows) if owners[row] == rank} | draw(some))
        for rank in range(ranks)
    ]
    return held, [sorted(draw(some)) for _ in range(ranks)], draw(st.integers(0, 2))


@settings(max_examples=40)
@given(_shares())
def test_every_rank_gets_what_it_wants(case: tuple[list[list[int]], list[list[int]], int]) -> None:
    held, wanted, dim = case
    rows = max(max(own, default=0) for own in held) + 1
    whole = torch.arange(2 * 3 * 2 * rows).reshape(2, 3, 2, rows).movedim(3, dim)
    held_T, wanted_T = ([torch.tensor(own, dtype=torch.int64) for own in x] for x in (held, wanted))

    def work(world: ThreadWorld) -> tuple[torch.Tensor, int]:
        way = route(held_T, wanted_T, world.rank)
        local = whole.index_select(dim, held_T[world.rank])
        new = move_rows(local, way, world, what="test", dim=dim)
        return new, sum(len(rows) for rows in way.comes)

    for rank, (new, came) in enumerate(on_ranks(len(held), work)[0]):
        assert torch.equal(new, whole.index_select(dim, wanted_T[rank]))
        assert came == len(set(wanted[rank]) - set(held[rank]))


def test_what_nobody_holds_is_said() -> None:
    with pytest.raises(ValueError, match="no rank holds"):
        route([torch.tensor([0])], [torch.tensor([0, 1])], 0)
