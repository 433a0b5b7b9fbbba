"""Scores of units whose weights lie on ranks, here threads, beside those of one process."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph
from secateur.core.shards import Part
from secateur.criteria.score import score
from secateur.criteria.sharded import BINS, WIDTH, partial_sums, score_shards
from secateur.graph.trace import trace
from secateur.select.plan import plan

sys.path.insert(0, str(Path(__file__).parents[1] / "masks"))
from thread_world import ThreadWorld, boxes, on_ranks


class Net(nn.Module):
    """A residual of convolutions, a grouped one, a fused projection of two heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fused = nn.Linear(8, 24)
        self.out = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = (x + self.grouped(x)).mean((2, 3))
        return self.out(torch.relu(self.fused(x)))


@pytest.fixture(scope="module")
def traced() -> tuple[nn.Module, Graph]:
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.norm.weight.uniform_(0.5, 2)
    return net, trace(net, torch.randn(2, 3, 6, 6))


def split(ranks: int, seed: int):  # type: ignore[no-untyped-def]
    """Parts of parameters along their first or second dimension, anywhere."""

    def part(name: str, tensor: Tensor, rank: int) -> Part:
        generator = torch.Generator().manual_seed(seed + sum(map(ord, name)))
        shape = tuple(tensor.shape)
        dim = int(torch.randint(min(2, len(shape)), (1,), generator=generator))
        inner = torch.randint(shape[dim] + 1, (ranks - 1,), generator=generator).sort().values
        splits = [(0, n) for n in shape]
        splits[dim] = (0, *inner.tolist(), shape[dim])
        box = boxes(shape, splits)[rank]
        own = tensor.detach().narrow(dim, box.start[dim], box.size[dim])
        return Part(own, box)

    return part


@settings(max_examples=8)
@given(st.integers(1, 6), st.integers(0, 999), st.sampled_from(["l1", "l2"]))
def test_scores_do_not_depend_on_how_a_model_is_sharded(
    traced: tuple[nn.Module, Graph], ranks: int, seed: int, criterion: str
) -> None:
    net, graph = traced

    def work(world: ThreadWorld) -> dict[str, Tensor]:
        return dict(score_shards(graph, net, world, criterion=criterion))

    (alone,), _ = on_ranks(1, work)
    found, _ = on_ranks(ranks, work, split(ranks, seed))
    one = score(graph, net, criterion=criterion)
    assert list(alone) == list(one)
    for scores in found:
        assert all(torch.equal(scores[id], alone[id]) for id in alone)
    for id, values in one.items():
        torch.testing.assert_close(alone[id], values, rtol=1e-6, atol=0)
    budget = "macs=60%"
    assert plan(graph, alone, budget=budget).to_json() == plan(graph, one, budget=budget).to_json()


def test_sums_are_exact() -> None:
    weights = torch.tensor([[1e15, 1.0, -1e15], [3 * 2.0**-38, 2.0**-20, 3.0]], dtype=torch.float64)
    part = Part(weights, boxes((2, 3), [(0, 2)])[0])
    found = partial_sums(part, torch.abs, {0, 1}, exponent=50)
    for dim, sums_BK in found.items():
        for index in range(weights.shape[dim]):
            exact = math.fsum(weights.select(dim, index).abs().tolist())
            ours = math.fsum(
                float(sums_BK[b, index]) * 2.0 ** (50 - WIDTH * (b + 1)) for b in range(BINS)
            )
            assert ours == exact
    assert torch.equal(found[0], found[0].round())


def test_copies_are_counted_once(traced: tuple[nn.Module, Graph]) -> None:
    net, graph = traced
    (alone,), _ = on_ranks(1, lambda world: score_shards(graph, net, world))
    found, meeting = on_ranks(3, lambda world: score_shards(graph, net, world))
    for scores in found:
        assert all(torch.equal(scores[id], alone[id]) for id in alone)
    units = sum(len(values) for values in alone.values())
    assert meeting.sent[1] < 8 * BINS * units + 200


def test_what_means_nothing_is_refused_on_every_rank(traced: tuple[nn.Module, Graph]) -> None:
    _, graph = traced
    net = Net()
    with torch.no_grad():
        net.fused.weight[20, 3] = math.nan

    def work(world: ThreadWorld) -> str:
        with pytest.raises(ScoreError) as caught:
            score_shards(graph, net, world)
        return str(caught.value)

    found, _ = on_ranks(4, work, split(4, 0))
    assert len(set(found)) == 1
    assert found[0].startswith("fused.weight holds NaN")


def test_a_criterion_that_is_no_sum(traced: tuple[nn.Module, Graph]) -> None:
    net, graph = traced
    with pytest.raises(ValueError, match="'linf' is no sum over single weights"):
        on_ranks(1, lambda world: score_shards(graph, net, world, criterion="linf"))
