"""A multiple is asked of layers' widths: heads are free where their width answers for it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.select.alignment import unit_steps


class Net(nn.Module):
    """Attention with six heads of eight, a convolution flattened over 2 x 2 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = 6
        self.qkv, self.proj = nn.Linear(5, 3 * 48), nn.Linear(48, 16)
        self.conv, self.fc = nn.Conv2d(16, 12, 1), nn.Linear(12 * 4, 3)
        self.bias = nn.Parameter(torch.randn(6, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v * self.bias).transpose(1, 2).flatten(2)
        maps = self.proj(y).transpose(1, 2).unflatten(2, (2, 2))
        out: Tensor = self.fc(self.conv(maps).flatten(1))
        return out


@pytest.fixture(scope="module")
def graph() -> sc.Graph:
    return sc.trace(Net(), torch.randn(1, 4, 5))


def axes(graph: sc.Graph) -> dict[str, int]:
    return {group.id: group.axis.index for group in graph.groups}


def test_the_innermost_moving_axis_answers(graph: sc.Graph) -> None:
    index = axes(graph)
    heads, width = index["bias[0]"], index["qkv.weight[0].2"]
    assert unit_steps(graph, {heads, width}, 8) == {width: 8}
    assert unit_steps(graph, {heads}, 8) == {heads: 1}  # six eights are a multiple of 8
    assert unit_steps(graph, {heads}, 16) == {heads: 2}


def test_channels_count_as_the_convolution_has_them(graph: sc.Graph) -> None:
    channels = axes(graph)["conv.weight[0]"]
    assert unit_steps(graph, {channels}, 4) == {channels: 4}  # not 1, for the 2 x 2 behind it
    assert unit_steps(graph, {channels}, 1) == {}


def test_widths_of_a_plan_are_multiples(graph: sc.Graph) -> None:
    model = Net()
    plan = sc.plan(graph, sc.score(graph, model, criterion="l2"), keep=0.4, multiple_of=4)
    small = sc.cut(model, plan)
    assert small.qkv.out_features % 4 == small.proj.out_features % 4 == 0  # type: ignore[operator]
    assert small.conv.out_channels == 8
    assert small.heads == 3  # ceil(0.4 * 6), as no multiple holds them back
