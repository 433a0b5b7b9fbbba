"""What a layer's outputs are added to is found, and the last layer of a block makes up for it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from secateur import cut, plan, score, trace
from secateur.oneshot import reconstruct_
from secateur.oneshot.least_squares import RIDGES
from secateur.oneshot.places import Place
from secateur.oneshot.streams import Step, laid_as, streams_of


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


class Residual(nn.Module):
    """Two blocks of a stream, the second of which adds in place."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 4)
        self.up1, self.down1 = nn.Linear(4, 8), nn.Linear(8, 4)
        self.up2, self.down2 = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.down1(self.up1(x).relu())
        x += self.down2(self.up2(x).tanh())
        return x


class Images(nn.Module):
    """A block whose convolution is normed before it is added, and one in the layout of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.conv, self.norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)
        self.scale = nn.Parameter(torch.linspace(0.5, 2, 6))
        self.other = nn.Conv2d(6, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.norm(self.conv(x)) + x
        tokens = x.permute(0, 2, 3, 1)
        tokens = tokens + self.scale * self.down(self.up(tokens).relu())
        x = tokens.permute(0, 3, 1, 2)
        return torch.cat([x, self.other(x).relu() + x], 1)


def test_the_other_summand_is_found_where_it_was_made_before() -> None:
    model, x = Residual().double(), rows(5, 3)
    found = streams_of(model, lambda: model(x))
    assert set(found) == {Place("down1.weight", 0), Place("down2.weight", 0)}
    assert found[Place("down1.weight", 0)].step == Step(Place("embed.weight", 0), 0)
    # the sum of the first block: the operator after its last product
    assert found[Place("down2.weight", 0)].step == Step(Place("down1.weight", 0), 1)
    torch.testing.assert_close(found[Place("down1.weight", 0)].slopes_M, torch.ones(4).double())


def test_slopes_tell_what_a_norm_and_a_scale_make_of_an_output() -> None:
    torch.manual_seed(0)
    model, x = Images().double().eval(), torch.randn(2, 3, 5, 5, dtype=torch.float64)
    nn.init.uniform_(model.norm.running_var, 0.5, 2)
    found = streams_of(model, lambda: model(x))
    slopes = {place.name: beside.slopes_M for place, beside in found.items()}
    assert "other.weight" not in slopes  # behind a relu there is no straight line
    per_channel = model.norm.weight / (model.norm.running_var + model.norm.eps).sqrt()
    torch.testing.assert_close(slopes["conv.weight"], per_channel.detach())
    torch.testing.assert_close(slopes["norm.weight"], torch.ones(6).double())
    torch.testing.assert_close(slopes["down.weight"], model.scale.detach())


def test_a_stream_in_another_layout_is_laid_as_the_outputs() -> None:
    """Tokens of which a convolution made images: the sum lies as the one summand or the other."""
    model, x = Images().double().eval(), torch.randn(2, 3, 5, 4, dtype=torch.float64)
    beside = streams_of(model, lambda: model(x))[Place("down.weight", 0)]
    with torch.no_grad():
        stream = model.stem(x)
        stream = model.norm(model.conv(stream)) + stream
    made = torch.empty(2 * 5 * 4, 6)
    expected = stream.permute(0, 2, 3, 1).reshape(-1, 6)
    torch.testing.assert_close(laid_as(stream, made, beside.order), expected)


def test_numbers_are_laid_as_those_of_a_product() -> None:
    tokens = torch.arange(24.0).reshape(2, 3, 4)
    images = tokens.permute(0, 2, 1)
    assert torch.equal(laid_as(images, tokens.flatten(0, 1)), tokens.flatten(0, 1))


def test_the_last_layer_of_a_block_makes_up_for_the_blocks_before() -> None:
    """Its weights are those of a ridge regression of the dense stream less the cut one so far."""
    torch.manual_seed(0)
    model, x = Residual().double(), rows(60, 3)
    graph = trace(model, x[:2])
    made = plan(graph, score(graph, model), keep=0.5)
    small = cut(model, made)
    start = torch.cat([small.down2.weight, small.down2.bias[:, None]], 1).T.detach()
    reconstruct_(small, model, plan=made, data=[(x, None)])
    with torch.no_grad():
        before = small.embed(x)
        before = before + small.down1(small.up1(before).relu())
        hidden = torch.cat([small.up2(before).tanh(), torch.ones(60, 1)], 1)
        ridge = RIDGES[2] * float(hidden[:, :-1].square().sum()) / (hidden.shape[1] - 1)
        anchor = math.sqrt(ridge) * torch.eye(hidden.shape[1])[:-1].double()
        wanted = torch.cat([model(x) - before, anchor @ start])
        expected = torch.linalg.lstsq(torch.cat([hidden, anchor]), wanted).solution
    torch.testing.assert_close(small.down2.weight, expected[:-1].T, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(small.down2.bias, expected[-1], rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("kind", [Residual, Images])
def test_a_stream_that_is_whole_lacks_nothing(kind) -> None:
    torch.manual_seed(0)
    model = kind().double().eval()
    x = rows(6, 3) if kind is Residual else torch.randn(6, 3, 5, 5, dtype=torch.float64)
    graph = trace(model, x)
    made = plan(graph, score(graph, model), keep=1.0)
    small = cut(model, made)
    reconstruct_(small, model, plan=made, data=[x, x.flip(0)])
    torch.testing.assert_close(small(x), model(x), rtol=1e-9, atol=1e-9)
