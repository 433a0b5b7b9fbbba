from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_references import kept_by_sorting
from thread_world import Meeting, Split, ThreadWorld, boxes, on_ranks, own_part, put_together
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.core.shards import Shard
from secateur.masks import refinement, shard_source, sharded_selection, sharded_ties
from secateur.masks.keys import common_dtype
from secateur.masks.refinement import Question, brackets
from secateur.masks.shard_source import Cut, Pool, ShardSource, at_most, kept_bits
from secateur.masks.sharded_selection import smallest_of

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
Layout = list[list[Shard]]
"""For each tensor the box of each rank."""


def made(seed: int, shape: tuple[int, ...], dtype: torch.dtype, kind: str) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    if kind == "few values":
        values = values.round()
    elif kind == "equal":
        values = torch.full_like(values, -1.5)
    elif kind == "zeros":
        values = torch.full_like(values, -0.0)
    elif kind == "tiny":  # subnormal numbers
        values *= 1e-42
    return values.to(dtype)


@dataclass(frozen=True)
class Case:
    """shapes, seeds, kinds, dtypes: of tensors. splits: of the first two dimensions of each, by a
    mesh of rows by columns of ranks. copied: each part lies on two ranks, of which one counts."""

    shapes: list[tuple[int, ...]]
    seeds: list[int]
    kinds: list[str]
    dtypes: list[torch.dtype]
    splits: list[list[Split]]
    copied: bool

    def build(self) -> tuple[list[Tensor], Layout, list[bool]]:
        tensors = [
            made(*one) for one in zip(self.seeds, self.shapes, self.dtypes, self.kinds, strict=True)
        ]
        pairs = zip(self.shapes, self.splits, strict=True)
        layout = [boxes(shape, splits) * (1 + self.copied) for shape, splits in pairs]
        half = len(layout[0]) // (1 + self.copied)
        return tensors, layout, [k < half for k in range(len(layout[0]))]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    mesh = draw(st.sampled_from([(1, 1), (2, 1), (3, 1), (8, 1), (2, 2), (2, 4), (1, 3)]))
    number = draw(st.integers(1, 3))
    shapes = [
        tuple(draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))) for _ in range(number)
    ]
    splits = []
    for shape in shapes:
        inner = [
            draw(st.lists(st.integers(0, extent), min_size=parts - 1, max_size=parts - 1))
            for extent, parts in zip(shape[:2], mesh, strict=True)
        ]
        ends = zip(inner, shape[:2], strict=True)
        splits.append([(0, *sorted(some), extent) for some, extent in ends])
    kinds = ("normal", "few values", "equal", "zeros", "tiny")
    return Case(
        shapes,
        [draw(st.integers(0, 2**31)) for _ in shapes],
        [draw(st.sampled_from(kinds)) for _ in shapes],
        [draw(st.sampled_from(DTYPES)) for _ in shapes],
        splits,
        copied=draw(st.booleans()) and mesh[0] * mesh[1] <= 4,
    )


def sources(
    world: ThreadWorld,
    tensors: Sequence[Tensor],
    layout: Layout,
    counted: Sequence[bool],
    *,
    signed: bool = False,
) -> tuple[ShardSource, ...]:
    dtype = common_dtype([t.dtype for t in tensors])
    found = []
    for tensor, found_boxes in zip(tensors, layout, strict=True):
        own = own_part(tensor, found_boxes[world.rank])
        box, counts = found_boxes[world.rank], counted[world.rank]
        found.append(ShardSource("w", box, lambda own=own: own, dtype, signed, counts))
    return tuple(found)


def unpacked(source: ShardSource, cut: Cut) -> Tensor:
    bits = np.unpackbits(kept_bits(source, cut), count=source.shard.own)
    return torch.from_numpy(bits.astype(bool)).reshape(source.shard.size)


def selected(
    tensors: list[Tensor],
    layout: Layout,
    counted: list[bool],
    pools: list[tuple[slice, int]],
    *,
    signed: bool = False,
) -> tuple[list[Tensor], Meeting]:
    """What is kept of the tensors when each pool of them loses so many."""

    def work(world: ThreadWorld) -> list[Tensor]:
        own = sources(world, tensors, layout, counted, signed=signed)
        cuts = smallest_of([Pool(own[some], count) for some, count in pools], world)
        flat = [cut for found in cuts for cut in found]
        return [unpacked(source, cut) for source, cut in zip(own, flat, strict=True)]

    found, meeting = on_ranks(len(counted), work)
    joined = [put_together([own[k] for own in found], layout[k]) for k in range(len(tensors))]
    return joined, meeting


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a few hundred go the way of those of millions: chunks, levels and rounds."""
    monkeypatch.setattr(shard_source, "CHUNK", 64)
    monkeypatch.setattr(sharded_ties, "CHUNK", 64)
    monkeypatch.setattr(sharded_selection, "_BITS", (5, 6))
    monkeypatch.setattr(sharded_selection, "_MANY", 1)
    monkeypatch.setattr(refinement, "FEW", 2)
    monkeypatch.setattr(refinement, "A_ROUND", 7)


@settings(max_examples=50)
@given(cases(), st.floats(0, 1), st.booleans())
def test_the_answer_is_that_of_one_stable_sort(case: Case, share: float, signed: bool) -> None:
    tensors, layout, counted = case.build()
    count = round(share * sum(t.numel() for t in tensors))
    scores = tensors if signed else [t.abs() for t in tensors]
    ours, _ = selected(tensors, layout, counted, [(slice(None), count)], signed=signed)
    for kept, naive in zip(ours, kept_by_sorting(scores, count), strict=True):
        assert torch.equal(kept, naive)


@settings(max_examples=25)
@given(cases(), st.floats(0, 1))
def test_each_tensor_alone(case: Case, share: float) -> None:
    tensors, layout, counted = case.build()
    counts = [round(share * t.numel()) for t in tensors]
    pools = [(slice(k, k + 1), count) for k, count in enumerate(counts)]
    ours, _ = selected(tensors, layout, counted, pools)
    for tensor, kept, count in zip(tensors, ours, counts, strict=True):
        assert torch.equal(kept, kept_by_sorting([tensor.abs()], count)[0])


def test_what_was_masked_goes_first() -> None:
    weights, kept = torch.tensor([[0.0, -9.0], [1.0, 9.0]]), np.packbits([1, 1, 1, 0])
    layout = boxes((2, 2), [(0, 1, 2)])

    def work(world: ThreadWorld) -> list[list[bool]]:
        own = own_part(weights, layout[world.rank])
        bits = np.packbits(np.unpackbits(kept)[2 * world.rank :][:2])
        found = []
        for signed, count in ((False, 1), (True, 1), (True, 2)):
            box = layout[world.rank]
            one = ShardSource("w", box, lambda: own, torch.float32, signed, kept=bits)
            ((cut,),) = smallest_of([Pool((one,), count)], world)
            found.append(unpacked(one, cut).flatten().tolist())
        return found

    (upper, lower), _ = on_ranks(2, work)
    assert upper == [[True, True], [True, True], [True, False]]
    assert lower == [[True, False], [True, False], [True, False]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("count", [0, 50])
def test_what_has_no_rank_is_refused_on_every_rank(value: float, count: int) -> None:
    weights = torch.ones(10, 10)
    weights[7, 3] = value
    layout = [boxes((10, 10), [(0, 2, 5, 10)])]

    def work(world: ThreadWorld) -> str:
        own = sources(world, [weights], layout, [True] * 3, signed=value < 0)
        with pytest.raises(ScoreError, match="w holds NaN or infinite") as caught:
            smallest_of([Pool(own, count)], world)
        return str(caught.value)

    found, _ = on_ranks(3, work)
    assert len(set(found)) == 1


def test_up_to_a_key() -> None:
    weights = torch.tensor([[1.0, 2.0], [3.0, 2.0]])
    layout = [boxes((2, 2), [(0, 1, 2)])]

    def work(world: ThreadWorld) -> list[bool]:
        own = sources(world, [weights], layout, [True] * 2)
        (cut,) = at_most(own, int(torch.tensor(2.0).view(torch.int32)), world)
        return unpacked(own[0], cut).flatten().tolist()

    assert on_ranks(2, work)[0] == [[False, False], [True, False]]


def test_a_threshold_costs_kilobytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tensors = [made(k, (500, 700), torch.float32, "few values") for k in range(3)]
    layout = [boxes((500, 700), [(0, 200, 200, 399, 500)]) for _ in tensors]
    ours, meeting = selected(tensors, layout, [True] * 4, [(slice(None), 700_000)])
    for kept, naive in zip(ours, kept_by_sorting([t.abs() for t in tensors], 700_000), strict=True):
        assert torch.equal(kept, naive)
    assert max(meeting.sent) < 12_000


@settings(max_examples=60)
@given(
    st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=40), min_size=1, max_size=5),
    st.integers(3, 30),
    st.data(),
)
def test_brackets_enclose_the_answer(
    counts: list[list[int]], fan: int, data: st.DataObject
) -> None:
    sums = [np.cumsum(own) for own in counts]
    wanted = [data.draw(st.integers(0, int(s[-1]))) for s in sums]
    guesses = [data.draw(st.none() | st.floats(-9, 49)) for _ in sums]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refinement, "A_ROUND", fan)
        asked = [
            Question(s.item, len(s), w, int(s[-1]), guess)
            for s, w, guess in zip(sums, wanted, guesses, strict=True)
        ]
        (found,), _ = on_ranks(1, lambda world: brackets(asked, world=world, what="test"))
    few = sum(one.things for one in found) <= refinement.enough(len(sums))
    for own, w, one in zip(sums, wanted, found, strict=True):
        index = int(np.searchsorted(own, w))
        assert one.first <= index <= one.last
        assert few or one.first == one.last
        assert one.below == (own[one.first - 1] if one.first else 0)
        assert one.upto == own[one.last]


@given(st.data())
def test_elements_before_a_position(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4)))
    start = tuple(data.draw(st.integers(0, extent)) for extent in shape)
    size = tuple(
        data.draw(st.integers(0, extent - first))
        for extent, first in zip(shape, start, strict=True)
    )
    box = Shard(shape, start, size)
    own = own_part(torch.arange(math.prod(shape)).reshape(shape), box).flatten()
    assert box.own == len(own)
    for position in range(math.prod(shape) + 1):
        assert box.before(position) == int((own < position).sum())
    assert [box.position(index) for index in range(len(own))] == own.tolist()
