"""The fitted weights are the least-squares solution, and the outputs come near the dense ones."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import Tensor, nn

from secateur import Plan, PlanMismatchError, ScoreError, cut, plan, score, trace
from secateur.oneshot import reconstruct_
from secateur.oneshot.least_squares import RIDGES, Rows, fitted


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().norm() / wanted.detach().norm())


def halved(model: nn.Module, x: Tensor, **options) -> tuple[nn.Module, Plan]:
    graph = trace(model, x)
    made = plan(graph, score(graph, model), keep=0.5, **options)
    return cut(model, made), made


def test_what_other_units_know_is_taken_over() -> None:
    """Six hidden units of rank three: any three of them are enough."""
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 4)).double()
    small, made = halved(model, rows(2, 3))
    data = [rows(20, 3, seed) for seed in range(4)]
    plain = relative(small(rows(30, 3, 9)), model(rows(30, 3, 9)))
    assert reconstruct_(small, model, plan=made, data=data) is small
    assert plain > 0.1
    assert relative(small(rows(30, 3, 9)), model(rows(30, 3, 9))) < 1e-4


def test_one_layer_equals_ridge_regression_by_hand() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    small, made = halved(model, rows(2, 3))
    x = rows(40, 3)
    start = torch.cat([small[2].weight, small[2].bias[:, None]], 1).T.detach()
    hidden = torch.cat([small[1](small[0](x)), torch.ones(40, 1)], 1).detach()
    # the first layer keeps its outputs, so its own fit changes nothing
    ridge = RIDGES[2] * float(hidden[:, :-1].square().sum()) / (hidden.shape[1] - 1)
    anchor = math.sqrt(ridge) * torch.eye(hidden.shape[1])[:-1].double()
    expected = torch.linalg.lstsq(
        torch.cat([hidden, anchor]), torch.cat([model(x), anchor @ start]).detach()
    ).solution
    reconstruct_(small, model, plan=made, data=[(x, None)])
    torch.testing.assert_close(small[2].weight, expected[:-1].T, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(small[2].bias, expected[-1], rtol=1e-6, atol=1e-8)


class ConvNet(nn.Module):
    """Padded, strided, grouped and depthwise convolutions, batch norms, a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8, stride=2)
        self.conv2 = nn.Conv2d(8, 8, 2, dilation=2)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.bn1(self.conv1(x)).relu())
        x = torch.cat([self.conv2(x), x[..., 2:, 2:]], 1)
        return self.fc(self.bn2(x).relu().mean((2, 3)))


class Tokens(nn.Module):
    """Attention of torch's own, whose projection is one fused weight, and a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(3, 16)
        self.attention = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.shared = nn.Linear(16, 16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(self.embed(x.flatten(2).transpose(1, 2)))
        return self.head(self.shared(self.shared(x).relu()).mean(1))


def images(count: int, seed: int) -> Tensor:
    """Images whose pixels go together, as those of photos do."""
    coarse = rows(count * 3, 9, seed).reshape(count, 3, 3, 3)
    fine = rows(count * 3, 81, seed + 100).reshape(count, 3, 9, 9)
    return nn.functional.interpolate(coarse, (9, 9), mode="bilinear") + 0.1 * fine


@pytest.mark.parametrize("kind", [ConvNet, Tokens])
@pytest.mark.parametrize("options", [{}, {"include_structural": True}], ids=["plain", "structural"])
def test_outputs_come_nearer_on_inputs_never_seen(kind, options) -> None:
    threads = threading.active_count()
    torch.manual_seed(1)
    model = kind().double().eval()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.05, 0.2)
    small, made = halved(model, images(1, 0), **options)
    small.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    held = images(32, 50)
    with torch.no_grad():
        plain = relative(small.eval()(held), model(held))
        reconstruct_(small.train(), model, plan=made, data=[images(24, k) for k in range(4)])
        assert small.training
        assert relative(small.eval()(held), model(held)) < 0.6 * plain
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert threading.active_count() == threads


def test_what_has_no_place_of_its_own_stays_as_cut() -> None:
    model = Tokens().double().eval()
    small, made = halved(model, images(1, 0))
    before = small.shared.weight.detach().clone()
    reconstruct_(small, model, plan=made, data=[images(8, 1), images(8, 2)])
    assert torch.equal(small.shared.weight, before)


def test_a_cut_of_nothing_changes_nothing() -> None:
    model = ConvNet().double().eval()
    graph = trace(model, images(1, 0))
    made = plan(graph, score(graph, model), keep=1.0)
    small = cut(model, made)
    reconstruct_(small, model, plan=made, data=[images(8, 1), images(8, 2)])
    held = images(4, 3)
    torch.testing.assert_close(small(held), model(held), rtol=1e-9, atol=1e-9)


def test_the_ridge_is_chosen_on_what_was_held_back() -> None:
    x, noise = rows(6, 5)[None], rows(6, 2, 7)[None]
    start = torch.zeros(1, 5, 2, dtype=torch.float64)
    both = Rows()
    both.add_(x, noise)
    both.add_(rows(200, 5, 3)[None], torch.zeros(1, 200, 2, dtype=torch.float64), held=True)
    seen, held = both.take()
    assert seen is not None
    # noise is learnt where nothing is held back, and left alone where it does not repeat
    assert float(fitted(seen, start).abs().max()) > 0.1
    assert torch.equal(fitted(seen, start, held=held), start)


def test_wrong_inputs_are_told() -> None:
    threads = threading.active_count()
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 4)).double()
    small, made = halved(model, rows(2, 3))
    with pytest.raises(ScoreError, match="no batch"):
        reconstruct_(small, model, plan=made, data=[])
    with pytest.raises(ScoreError, match=r"0\.weight reads or makes holds NaN"):
        reconstruct_(small, model, plan=made, data=[rows(4, 3) * math.nan])
    with pytest.raises(PlanMismatchError, match=r"pass small=cut\(model, plan\)"):
        reconstruct_(model, model, plan=made, data=[rows(4, 3)])
    with pytest.raises(PlanMismatchError, match="made for another model"):
        reconstruct_(small, small, plan=made, data=[rows(4, 3)])
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        reconstruct_(small, model, plan=made, data=[rows(4, 7)])
    assert threading.active_count() == threads
