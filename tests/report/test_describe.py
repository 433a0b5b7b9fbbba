"""Groups in the model's own words, with shares that are counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc
from secateur.report.describe import Description, alike, describe


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 8
        self.qkv, self.proj = nn.Linear(16, 96, bias=False), nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*qkv.unbind(0)).transpose(1, 2).flatten(2)
        return x + self.proj(y)  # type: ignore[no-any-return]


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(5, 16, bias=False)
        self.blocks = nn.ModuleList(Attention() for _ in range(3))
        self.head = nn.Linear(16, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        out: Tensor = self.head(x)
        return out


@pytest.fixture(scope="module")
def described() -> dict[str, Description]:
    graph = sc.trace(Stack(), torch.randn(1, 7, 5))
    return {one.name: one for one in describe(graph)}


def test_heads_have_the_attribute_s_name_and_their_width(described: dict[str, Description]) -> None:
    heads = described["blocks.1.num_heads"]
    assert (heads.units, heads.unit, heads.cut, heads.pinned) == (4, 8, "exact", None)
    assert heads.members == ("blocks.1.qkv.weight [0]", "blocks.1.proj.weight [1]")
    # of 5*16 + 3 * (16*96 + 32*16) + 16*2 parameters, those of one attention
    assert heads.params_share == pytest.approx((16 * 96 + 32 * 16) / (80 + 3 * 2048 + 32))


def test_a_residual_width_says_how_many_layers_make_it(described: dict[str, Description]) -> None:
    width = described["stem outputs (and of 3 more)"]
    assert (width.units, width.unit) == (16, 1)
    assert width.params_share == pytest.approx(1.0)


def test_pins_say_why(described: dict[str, Description]) -> None:
    assert described["head.weight[0]"].pinned == "an output of the model"
    assert described["stem.weight[1]"].pinned == "an input of the model"


def test_groups_that_differ_in_a_number_are_one_line(described: dict[str, Description]) -> None:
    lines = {line.name: line for line in alike(described.values())}
    heads = lines["blocks.{0-2}.num_heads"]
    assert len(heads.groups) == 3
    assert heads.params_share == pytest.approx(3 * described["blocks.1.num_heads"].params_share)
    assert sum(len(line.groups) for line in lines.values()) == len(described)


def test_a_literal_is_named_with_its_line() -> None:
    class Literal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 1), nn.Linear(8 * 4, 2)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.conv(x).view(-1, 32))
            return out

    found = describe(sc.trace(Literal(), torch.randn(1, 1, 2, 2)))
    (reason,) = {one.pinned for one in found if one.id == "conv.weight[0]"}
    assert reason is not None and "literal size" in reason and "test_describe.py:" in reason
