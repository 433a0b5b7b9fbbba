"""What criteria are told beside the weights: exact where it can be known, refused where unsound."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from small_models import Attention, ConvNet, batches, made
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur import ScoreError, score, trace
from secateur.core.lookup import find, names
from secateur.criteria import moments
from secateur.criteria.blocks import score_blocks
from secateur.criteria.curvature import hessian_diagonals, hessian_gradients
from secateur.criteria.evidence import KINDS, evidence_kind
from secateur.criteria.gradients import mean_gradients, samples_of
from secateur.criteria.synaptic import synaptic_gradients

LOSS = nn.functional.cross_entropy
NEED_DATA = [
    name
    for name in names("secateur.criteria")
    if find("secateur.criteria", name, kind="criterion").NEEDS
    & ({*KINDS, "activations", "input_moments"} - {"synaptic_gradient"})
]


class Bowl(nn.Module):
    """``sum of c_k w_k^2``: its Hessian is diagonal, 2 c."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, c: Tensor) -> Tensor:
        return (c * self.w.square()).sum(-1)


def mean(outputs: Tensor, targets: object) -> Tensor:
    return outputs.mean()


BOWLS = [(torch.tensor([[1.0, 2.0, 3.0]]), 0), (torch.tensor([[3.0, 2.0, -1.0]]), 0)]


def test_curvature_of_a_bowl() -> None:
    model = Bowl()
    diagonal = hessian_diagonals(model, BOWLS, mean)
    torch.testing.assert_close(diagonal, {"w": torch.tensor([4.0, 4.0, 2.0])})
    gradient = mean_gradients(model, iter(BOWLS), mean)["w"]
    torch.testing.assert_close(gradient, torch.tensor([4.0, -8.0, 6.0]))
    product = hessian_gradients(model, iter(BOWLS), mean)["w"]
    torch.testing.assert_close(product, torch.tensor([16.0, -32.0, 12.0]))
    assert model.w.grad is None


def test_the_estimate_of_a_diagonal_comes_near_it() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh(), nn.Linear(2, 2)).double()
    data = [(batches()[0][0][:, 0, 0, :3], torch.tensor([0, 1, 1, 0]))]

    def loss_of(flat: Tensor) -> Tensor:
        return LOSS(torch.func.functional_call(model, {"0.weight": flat}, data[0][0]), data[0][1])

    whole = torch.autograd.functional.hessian(loss_of, model[0].weight.detach())
    exact = whole.reshape(6, 6).diagonal().reshape(2, 3)
    found = hessian_diagonals(model, data, LOSS, probes=1500)["0.weight"]
    assert float((found - exact).norm() / exact.norm()) < 0.25


def test_flow_is_conserved_from_layer_to_layer() -> None:
    """Tanaka et al., theorem 1: without biases every layer's scores add up to the same R."""
    layers = [nn.Linear(6, 5, bias=False), nn.ReLU(), nn.Linear(5, 7, bias=False), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(7, 2, bias=False))
    found = synaptic_gradients(model, [torch.zeros(1, 6)])
    sums = [float((p.detach().abs() * found[name]).sum()) for name, p in model.named_parameters()]
    flow = torch.ones(1, 6)
    for layer in model[::2]:
        flow = flow @ layer.weight.abs().T
    assert sums == pytest.approx([float(flow.detach().sum())] * 3)


def test_flow_of_tokens_needs_their_numbers() -> None:
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))
    tokens = torch.tensor([[1, 4, 2]])
    graph = trace(model, tokens)
    with pytest.raises(ScoreError, match=r"data=\[inputs\]"):
        score(graph, model, criterion="synflow")
    assert score(graph, model, criterion="synflow", data=[tokens])


@pytest.mark.parametrize("criterion", NEED_DATA)
def test_missing_data_say_what_to_type(criterion) -> None:
    model = made("conv")
    graph = trace(model, batches()[0][0])
    with pytest.raises(ScoreError, match=f"criterion='{criterion}', data=loader"):
        score(graph, model, criterion=criterion)
    with pytest.raises(ScoreError, match="holds no batch"):
        score(graph, model, criterion=criterion, data=[], loss_fn=LOSS)


@pytest.mark.parametrize("criterion", ["wanda", "apoz", "reconstruction"])
def test_unsound_activations_are_refused(criterion) -> None:
    model = made("conv")
    graph = trace(model, batches()[0][0])
    with pytest.raises(ScoreError, match="NaN or infinite"):
        score(graph, model, criterion=criterion, data=[batches()[0][0] * float("nan")])


class Fused(nn.Module):
    """Attention that insists on a kernel without a second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        q = self.layer(x)[:, None]
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return nn.functional.scaled_dot_product_attention(q, q, q).mean((1, 2))


def test_what_cannot_be_differentiated_twice_is_told() -> None:
    with pytest.raises(ScoreError, match="cannot be differentiated twice"):
        hessian_gradients(Fused(), [(torch.ones(2, 5, 3), torch.tensor([0, 1]))], LOSS)


def test_attention_can_be_differentiated_twice_and_kernels_come_back() -> None:
    model = Attention().eval()
    x, y = batches()[0]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert "qkv.weight" in hessian_gradients(model, [(x.float(), y)], LOSS)
    lstm = nn.LSTM(3, 4, batch_first=True)
    data = [(torch.randn(2, 5, 3), torch.tensor([1, 2]))]
    assert len(hessian_diagonals(lstm, data, lambda out, y: LOSS(out[0][:, -1], y))) == 4
    assert torch.backends.mkldnn.enabled and torch.backends.cuda.flash_sdp_enabled()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_samples_of_unequal_tensors_are_refused() -> None:
    odd = [(torch.zeros(4, 3), torch.zeros(3))]
    with pytest.raises(ScoreError, match=r"first dimensions of its tensors are \[3, 4\]"):
        next(samples_of(odd))
    one = next(samples_of([{"x": torch.ones(2, 3), "scale": torch.tensor(2.0), "n": 5}]))
    assert one["x"].shape == (1, 3) and one["scale"].dim() == 0 and one["n"] == 5


def test_groups_without_a_norm_have_no_scale() -> None:
    plain = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    graph = trace(plain, torch.zeros(1, 3))
    with pytest.raises(ScoreError, match=r"no group of this model .* goes through one"):
        score(graph, plain, criterion="norm_scale")
    model = ConvNet().eval()
    graph = trace(model, batches()[0][0].float())
    assert list(score(graph, model, criterion="norm_scale")) == ["conv1.weight[0]"]


class Tied(nn.Module):
    """An embedding whose weight is the head's as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(9, 8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 9, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor, labels: Tensor | None = None) -> object:
        x = self.embed(tokens)
        logits = self.head(x + self.down(self.up(x).relu()))
        if labels is None:
            return logits
        return SimpleNamespace(loss=LOSS(logits.flatten(0, 1), labels.flatten()), logits=logits)


@pytest.mark.parametrize(
    "criterion", [name for name in names("secateur.criteria") if name != "block_output"]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_tied_weights_and_half_precision(criterion, dtype) -> None:
    rule = find("secateur.criteria", criterion, kind="criterion")
    model = Tied().to(dtype).eval()
    tokens = torch.randint(9, (2, 5))
    graph = trace(model, tokens)
    data = [{"tokens": tokens, "labels": tokens}]
    if "norm_scale" in rule.NEEDS:
        with pytest.raises(ScoreError, match="no group"):
            score(graph, model, criterion=criterion, data=data)
        return
    if evidence_kind(rule) == "synaptic_gradient":
        data = [{"tokens": tokens}]
    scores = score(graph, model, criterion=criterion, data=data)
    assert len(scores) == len(graph.free) == 2
    assert all(bool(values.isfinite().all()) for values in scores.values())


def test_moments_in_several_passes_are_the_same(monkeypatch) -> None:
    model = made("conv")
    graph = trace(model, batches()[0][0])
    data = [x for x, _ in batches()]
    expected = score(graph, model, criterion="reconstruction", data=iter(data))
    monkeypatch.setattr(moments, "BYTES", 1)
    again = score(graph, model, criterion="reconstruction", data=data)
    assert all(torch.equal(expected[id], again[id]) for id in expected)


@pytest.mark.parametrize("criterion", ["lamp", "geometric_median", "apoz", "norm_scale"])
def test_what_compares_units_scores_no_blocks(criterion) -> None:
    model = ConvNet().eval()
    graph = trace(model, batches()[0][0].float())
    with pytest.raises(ScoreError, match="says nothing of a whole block"):
        score_blocks(graph, model, criterion=criterion, data=batches(), loss_fn=LOSS)
