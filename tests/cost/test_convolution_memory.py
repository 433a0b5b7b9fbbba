"""What convolutions work in, against sums made by hand from oneDNN's layouts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import secateur as sc
from secateur.cost.convolution_memory import ConvolutionMemory
from secateur.cost.sizes import SizeTable


def works_in(*layers: nn.Module, size: tuple[int, ...], threads: int | None = None) -> list[int]:
    """Floats that each convolution works in."""
    graph, table = sc.trace(nn.Sequential(*layers), torch.zeros(size)), SizeTable()
    memory = ConvolutionMemory(graph, table, threads=threads)
    return [int(n) // 4 for n in memory.bytes(table.evaluate({}))]


def test_layouts_are_copied():
    # source 2 x 48 (of 40) x 64, weights 32 (of 20) x 48 x 9; the copy of the output is
    # 2 x 32 x 64, and the 2 x 20 x 64 of the output itself are not made yet
    source, weights, made = 2 * 48 * 64, 32 * 48 * 9, 2 * 32 * 64
    expected = source + weights + made - 2 * 20 * 64
    assert works_in(nn.Conv2d(40, 20, 3, padding=1), size=(2, 40, 8, 8)) == [expected]


def test_an_image_is_read_as_it_is():
    weights, made = 16 * 3 * 9, 2 * 16 * 64
    found = works_in(nn.Conv2d(3, 16, 3, padding=1), size=(2, 3, 8, 8))
    assert found == [max(weights + made - made, made)]


def test_depthwise():
    source, weights, made = 2 * 32 * 64, 32 * 9, 2 * 32 * 64
    found = works_in(nn.Conv2d(32, 32, 3, padding=1, groups=32), size=(2, 32, 8, 8))
    assert found == [source + weights + made - made]


def test_groups_that_fill_no_register_are_not_laid_out():
    made = 2 * 24 * 64
    assert works_in(nn.Conv2d(24, 24, 3, padding=1, groups=4), size=(2, 24, 8, 8)) == [made]


def test_a_strided_pointwise_convolution_gathers():
    source, weights, made = 2 * 32 * 64, 64 * 32, 2 * 64 * 16
    gathered = 3 * 32 * 16
    found = works_in(nn.Conv2d(32, 64, 1, stride=2), size=(2, 32, 8, 8), threads=3)
    assert found == [max(gathered + source + weights, made)]


@pytest.mark.parametrize("threads", [1, 2])
def test_one_small_image(threads: int):
    columns = 8 * 9 * 64
    assert works_in(nn.Conv2d(8, 8, 3, padding=1), size=(1, 8, 8, 8), threads=threads) == [columns]
    assert works_in(nn.Conv2d(8, 8, 1), size=(1, 8, 8, 8), threads=threads) == [0]


def test_one_thread_leaves_pointwise_convolutions_as_they_are():
    size, layer = (2, 32, 32, 32), nn.Conv2d(32, 32, 1)
    assert works_in(layer, size=size, threads=1) == [0]
    assert works_in(layer, size=size)[0] > 0


def test_double_precision_is_not_onednns():
    model = nn.Conv2d(4, 8, 3, padding=1).double()
    graph, table = sc.trace(model, torch.zeros(2, 4, 8, 8, dtype=torch.float64)), SizeTable()
    memory = ConvolutionMemory(graph, table)
    assert memory.bytes(table.evaluate({})).tolist() == [8 * 2 * 4 * 9 * 64]


class Tokens(nn.Module):
    """A depthwise convolution between linear layers, as in pyramid transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.depthwise = nn.Linear(16, 32), nn.Conv2d(32, 32, 3, padding=1, groups=32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc(x)
        return self.depthwise(x.transpose(1, 2).view(2, 32, 8, 8)).flatten(2)


def test_channels_that_lie_next_to_each_other_are_not_copied():
    assert works_in(Tokens(), size=(2, 64, 16)) == [32 * 9]


def test_transposed():
    source, weights, made = 2 * 16 * 64, 32 * 16 * 4, 2 * 32 * 256
    found = works_in(nn.ConvTranspose2d(16, 32, 2, stride=2), size=(2, 16, 8, 8))
    assert found == [max(source + weights, made)]
