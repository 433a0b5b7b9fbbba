"""Ranks that fit one cut model: the bits of one process, and one error for all when one fails."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from worlds import on_ranks

from secateur import ScoreError, cut, plan, score, trace
from secateur.core.errors import EngineError
from secateur.oneshot import reconstruct_


class Net(nn.Module):
    """A convolution, a residual branch with batch norms, and experts picked by the first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 4)
        self.experts = nn.ModuleList(nn.Linear(3, 4) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        stem = self.stem(x).relu()
        stream = stem + self.conv2(self.norm(self.conv1(stem)).relu())
        expert = self.experts[int(x[0, 0, 0, 0] > 0)]
        features = stream.mean((2, 3))
        return expert(x.mean((2, 3)) + features.sum(1, keepdim=True)) + self.head(features)


def images(count: int, seed: int, first: float) -> Tensor:
    found = torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed)).double()
    found[0, 0, 0, 0] = first
    return found


def made() -> tuple[nn.Module, nn.Module, object]:
    torch.manual_seed(0)
    model = Net().double().eval()
    with torch.no_grad():
        model.norm.running_mean.normal_()
        model.norm.weight.normal_()
    graph = trace(model, images(2, 0, 1.0))
    found = plan(graph, score(graph, model), keep=0.5)
    return cut(model, found), model, found


# the second expert runs on two batches of the nine, the first is not reached by the first batch
DATA = [images(3 + k % 3, k, 1.0 if k in (0, 3) else -1.0) for k in range(9)]


@pytest.mark.parametrize("size", [2, 5, 11])
def test_weights_are_those_of_one_process(size) -> None:
    small, model, chosen = made()
    before = copy.deepcopy(small.state_dict())
    twins = [(copy.deepcopy(small), copy.deepcopy(model)) for _ in range(size)]
    reconstruct_(small, model, plan=chosen, data=DATA)
    changed = {k for k, tensor in small.state_dict().items() if not torch.equal(before[k], tensor)}
    assert {"conv2.weight", "norm.weight", "head.weight"} <= changed
    assert "experts.1.weight" in changed and "experts.0.weight" not in changed

    def work(world):
        own, dense = twins[world.rank]
        reconstruct_(own, dense, plan=chosen, data=iter(DATA), world=world)
        return own.state_dict()

    for found in on_ranks(size, work):
        assert not isinstance(found, Exception), found
        for name, tensor in small.state_dict().items():
            assert torch.equal(found[name], tensor), name


def test_failures_are_those_of_all() -> None:
    small, model, chosen = made()
    spoilt = [batch.clone() for batch in DATA]
    spoilt[6][0, 1] = math.nan
    twins = [(copy.deepcopy(small), copy.deepcopy(model)) for _ in range(3)]
    found = on_ranks(
        3, lambda world: reconstruct_(*twins[world.rank], plan=chosen, data=spoilt, world=world)
    )
    assert all(isinstance(error, ScoreError) for error in found), found
    assert len({str(error) for error in found}) == 1 and "holds NaN" in str(found[0])
    with torch.no_grad():
        twins[1][0].stem.weight += 1
    found = on_ranks(
        3, lambda world: reconstruct_(*twins[world.rank], plan=chosen, data=DATA, world=world)
    )
    assert all(isinstance(error, EngineError) for error in found), found
    assert "stem.weight has other values on rank 1" in str(found[2])
