from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from mask_references import kept_by_sorting, kept_n_of_m
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from secateur.core.errors import ScoreError
from secateur.core.fingerprint import fingerprint
from secateur.core.lookup import find, names
from secateur.masks import Mask, fold_, mask_, sparsity, unmask_
from secateur.masks.dense import dense_fingerprint

WEIGHTS = ["conv.weight", "first.weight", "fc.weight"]
Batches = list[tuple[Tensor, Tensor]]


def weights_of(net: nn.Module) -> list[Tensor]:
    return [net.get_parameter(name).detach().clone() for name in WEIGHTS]


def test_global_masks_are_those_of_a_sort(net: nn.Module) -> None:
    weights = weights_of(net)
    plan = mask_(net, sparsity=0.7)
    total = sum(w.numel() for w in weights)
    naive = kept_by_sorting([w.abs() for w in weights], round(0.7 * total))
    assert list(plan.kept) == WEIGHTS
    for name, weight, kept in zip(WEIGHTS, weights, naive, strict=True):
        assert torch.equal(plan.kept[name], kept)
        module, _, leaf = name.rpartition(".")
        assert torch.equal(getattr(net.get_submodule(module), leaf), weight * kept)
    assert plan.sparsity == pytest.approx(0.7, abs=1 / total)


def test_the_same_masks_as_torch(net: nn.Module) -> None:
    peer = copy.deepcopy(net)
    peer.conv.to(memory_format=torch.contiguous_format)  # torch takes no other
    plan = mask_(net, sparsity=0.8)
    owners = [peer.get_submodule(name.rpartition(".")[0]) for name in WEIGHTS]
    prune.global_unstructured(
        [(owner, "weight") for owner in owners], pruning_method=prune.L1Unstructured, amount=0.8
    )
    for name, owner in zip(WEIGHTS, owners, strict=True):
        assert torch.equal(plan.kept[name], owner.weight_mask.bool())


def test_layer_scope_and_shares_by_name(net: nn.Module) -> None:
    weights = weights_of(net)
    plan = mask_(copy.deepcopy(net), sparsity=0.5, scope="layer")
    for name, weight in zip(WEIGHTS, weights, strict=True):
        (naive,) = kept_by_sorting([weight.abs()], weight.numel() // 2)
        assert torch.equal(plan.kept[name], naive)
    plan = mask_(net, sparsity={"fc.weight": 0.25, "conv.weight": 0.75})
    assert {layer.name: layer.sparsity for layer in plan.layers} == {
        "conv.weight": 0.75,
        "fc.weight": 0.25,
    }


@pytest.mark.parametrize("criterion", ["l1", "l2", "linf"])
def test_threshold(net: nn.Module, criterion: str) -> None:
    weights = weights_of(net)
    score = find("secateur.criteria", criterion, kind="criterion").element
    plan = mask_(net, threshold=0.05, criterion=criterion)
    for name, weight in zip(WEIGHTS, weights, strict=True):
        assert torch.equal(plan.kept[name], score(weight) > 0.05)


CRITERIA = [
    name
    for name in names("secateur.criteria")
    if "element" in vars(find("secateur.criteria", name, kind="criterion"))
]


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:2x2"])
def test_every_criterion_of_single_weights(
    net: nn.Module, batches: Batches, criterion: str, pattern: str
) -> None:
    share = None if ":" in pattern and not pattern.startswith("b") else 0.5
    before = net(batches[0][0])
    plan = mask_(
        net,
        sparsity=share,
        pattern=pattern,
        criterion=criterion,
        data=batches,
        loss_fn=F.cross_entropy,
    )
    assert plan.sparsity == pytest.approx(0.5, abs=0.02)
    assert not torch.equal(net(batches[0][0]), before)
    if pattern == "unstructured":  # and once more, on a model that has masks
        again = mask_(net, sparsity=0.8, criterion=criterion, data=batches, loss_fn=F.cross_entropy)
        assert again.sparsity == pytest.approx(0.8, abs=0.01)
        assert not any((again.kept[name] & ~plan.kept[name]).any() for name in WEIGHTS)


def test_scores_of_gradients_are_the_formula(net: nn.Module, batches: Batches) -> None:
    net.eval()
    total = [torch.zeros_like(w) for w in weights_of(net)]
    for x, y in batches:
        wanted = [net.get_parameter(name) for name in WEIGHTS]
        found = torch.autograd.grad(F.cross_entropy(net(x), y), wanted)
        total = [t + g for t, g in zip(total, found, strict=True)]
    snip = [(w * g).abs() for w, g in zip(weights_of(net), total, strict=True)]
    naive = kept_by_sorting(snip, round(0.6 * sum(s.numel() for s in snip)))
    plan = mask_(net, sparsity=0.6, criterion="snip", data=batches, loss_fn=F.cross_entropy)
    differing = sum(
        int((plan.kept[name] != kept).sum()) for name, kept in zip(WEIGHTS, naive, strict=True)
    )
    assert differing <= 2  # the order of the sum over batches moves a last bit


def test_n_of_m_runs_along_the_inputs(net: nn.Module) -> None:
    weights = weights_of(net)
    plan = mask_(net, pattern="2:4")
    for name, weight in zip(WEIGHTS, weights, strict=True):
        naive = kept_n_of_m(weight.abs(), input_dim=1, keep=2, of=4)
        assert torch.equal(plan.kept[name], naive)
    assert plan.sparsity == 0.5
    transposed = nn.ConvTranspose2d(8, 3, 2)
    kept = mask_(transposed, pattern="2:4").kept["weight"]
    assert (kept.unflatten(0, (2, 4)).sum(1) == 2).all()


def test_n_of_m_that_does_not_fit_is_said(net: nn.Module) -> None:
    with pytest.warns(UserWarning, match=r"conv\.weight has 4 inputs, no multiple of 8"):
        plan = mask_(net, pattern="4:8")
    assert list(plan.kept) == ["first.weight", "fc.weight"]
    assert "conv.weight has 4 inputs" in plan.notes[0]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="fits none"):
        mask_(nn.Linear(3, 3), pattern="2:4")


def test_blocks_by_hand() -> None:
    layer = nn.Linear(3, 5)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(15.0).view(5, 3))
    plan = mask_(layer, sparsity=0.5, pattern="block:4x1")
    # sums of the blocks: 0+3+6+9, 1+4+7+10, 2+5+8+11 and, at the edge, 12, 13, 14
    assert plan.kept["weight"].int().tolist() == [[1, 1, 1]] * 4 + [[0, 0, 0]]
    plan = mask_(layer, sparsity=5 / 6, pattern="block:4x1")
    assert plan.kept["weight"].int().tolist() == [[0, 0, 1]] * 4 + [[0, 0, 0]]


def test_blocks_of_a_kernel_lie_along_channels() -> None:
    conv = nn.Conv2d(4, 8, 3)
    weight = conv.weight.detach().clone()
    plan = mask_(conv, sparsity=0.5, pattern="block:4x2", criterion="l2", scope="layer")
    blocks = weight.square().view(2, 4, 2, 2, 3, 3).sum((1, 3))
    (naive,) = kept_by_sorting([blocks], blocks.numel() // 2)
    assert torch.equal(plan.kept["weight"].view(2, 4, 2, 2, 3, 3)[:, 0, :, 0], naive)
    assert (plan.kept["weight"].view(2, 4, 2, 2, 3, 3).float().std((1, 3)) == 0).all()


def test_masks_only_grow_unless_they_are_taken_off(net: nn.Module) -> None:
    dense = weights_of(net)
    first = mask_(net, sparsity=0.5)
    with torch.no_grad():  # what is hidden does not count, however large
        for name in WEIGHTS:
            owner = net.get_submodule(name.rpartition(".")[0])
            owner.parametrizations.weight.original[~first.kept[name]] = 100.0
    second = mask_(net, sparsity=0.75)
    assert second.sparsity == pytest.approx(0.75, abs=0.01)
    assert all(added == 0 for added, _ in second.diff(first).values())
    with pytest.raises(ValueError, match=r"masked to 75\.\d+% already.*unmask_"):
        mask_(net, sparsity=0.5)
    unmask_(net)
    assert mask_(net, sparsity=0.5).sparsity == pytest.approx(0.5, abs=0.01)
    assert dense[0].shape == net.conv.weight.shape


def test_a_shared_weight_has_one_mask(net: nn.Module) -> None:
    mask_(net, sparsity=0.5, scope="layer")
    masks = {id(m) for m in net.modules() if isinstance(m, Mask)}
    assert len(masks) == 3
    assert net.first.parametrizations.weight.original is net.second.parametrizations.weight.original
    assert torch.equal(net.first.weight, net.second.weight)
    fold_(net)
    assert net.first.weight is net.second.weight
    assert int((net.first.weight == 0).sum()) == 32


def test_fold_leaves_an_ordinary_module(net: nn.Module, batches: Batches) -> None:
    before, keys, own = fingerprint(net), list(net.state_dict()), dict(net.named_parameters())
    dense_classes = [type(m) for m in net.modules()]
    plan = mask_(net, sparsity=0.6)
    assert dense_fingerprint(net) == before == plan.fingerprint
    masked = net.eval()(batches[0][0])
    assert parametrize.is_parametrized(net.conv)
    assert fold_(net) is net
    assert list(net.state_dict()) == keys and fingerprint(net) == before
    assert [type(m) for m in net.modules()] == dense_classes
    assert all(net.get_parameter(name) is p for name, p in own.items())
    torch.testing.assert_close(net(batches[0][0]), masked, rtol=0, atol=0)
    assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)
    for name in WEIGHTS:
        zeros = net.get_parameter(name)[~plan.kept[name]]
        assert not torch.signbit(zeros).any() and not zeros.any()
    assert fold_(net) is net  # nothing left to fold


def test_a_copy_outlives_its_original(net: nn.Module) -> None:
    mask_(net, sparsity=0.5)
    twin = copy.deepcopy(net)
    fold_(net)
    assert isinstance(twin.conv.parametrizations.weight[0], Mask)
    assert torch.equal(twin.conv.weight, net.conv.weight)
    assert torch.equal(fold_(twin).conv.weight, net.conv.weight)


def test_other_parametrizations_stay(net: nn.Module) -> None:
    parametrize.register_parametrization(net.fc, "bias", nn.ReLU())
    nn.utils.parametrizations.weight_norm(net.conv)
    with pytest.warns(UserWarning, match=r"conv\.weight has a parametrization of its own"):
        plan = mask_(net, sparsity=0.5)
    assert list(plan.kept) == ["first.weight", "fc.weight"]
    fold_(net)
    assert parametrize.is_parametrized(net.fc, "bias")
    assert "weight" in net.fc._parameters
    mask_(net, sparsity=0.6, skip=["conv"])


def test_training_goes_on_with_the_same_optimizer(net: nn.Module, batches: Batches) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(batches[0][0]), batches[0][1]).backward()
        optimizer.step()

    step()
    plan = mask_(net, sparsity=0.8)
    hidden = net.fc.parametrizations.weight.original[~plan.kept["fc.weight"]].clone()
    before = net.fc.weight.clone()
    for _ in range(3):
        step()
        original = net.fc.parametrizations.weight.original
        assert not net.fc.weight[~plan.kept["fc.weight"]].any()
        assert not original.grad[~plan.kept["fc.weight"]].any()
    assert not torch.equal(net.fc.weight, before)
    # momentum and weight decay move what is hidden, as the documentation says
    assert not torch.equal(original[~plan.kept["fc.weight"]], hidden)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(net: nn.Module, dtype: torch.dtype) -> None:
    net.to(dtype)
    weights = weights_of(net)
    plan = mask_(net, sparsity=0.5)
    naive = kept_by_sorting([w.abs() for w in weights], sum(w.numel() for w in weights) // 2)
    for name, kept in zip(WEIGHTS, naive, strict=True):
        assert torch.equal(plan.kept[name], kept)
    assert net.fc.weight.dtype is dtype
    assert fold_(net).fc.weight.dtype is dtype


def test_recurrent_layers_run_masked() -> None:
    torch.manual_seed(0)
    lstm, x = nn.LSTM(4, 6), torch.randn(5, 2, 4)
    mask_(lstm, sparsity=0.5)
    masked = lstm(x)[0]
    plain = fold_(lstm)(x)[0]
    torch.testing.assert_close(masked, plain)


def test_masked_models_save_and_load(net: nn.Module) -> None:
    mask_(net, sparsity=0.5)
    torch.manual_seed(1)
    other = type(net)()
    mask_(other, sparsity=0.9)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.conv.weight, net.conv.weight)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_refused_and_nothing_changes(net: nn.Module, value: float) -> None:
    with torch.no_grad():
        net.fc.weight[1, 2] = value
    for how in ({"sparsity": 0.5}, {"threshold": 0.1}, {"pattern": "2:4"}):
        with pytest.raises(ScoreError, match=r"fc\.weight holds NaN or infinite"):
            mask_(net, **how)
    for criterion in ("linf", "lamp"):
        with pytest.raises(ScoreError, match=r"fc\.weight"):
            mask_(net, sparsity=0.5, criterion=criterion)
    assert not parametrize.is_parametrized(net.conv)
    mask_(net, sparsity=0.5, skip=["fc"])


def test_wrong_uses_are_errors_that_say_what_to_do(net: nn.Module, batches: Batches) -> None:
    with pytest.raises(ValueError, match=r"give sparsity=0\.8 or threshold"):
        mask_(net)
    with pytest.raises(ValueError, match="one of them"):
        mask_(net, sparsity=0.5, threshold=0.1)
    with pytest.raises(ValueError, match=r"in \[0, 1\), not 1"):
        mask_(net, sparsity=1.0)
    with pytest.raises(ValueError, match="leave sparsity and threshold out"):
        mask_(net, sparsity=0.6, pattern="2:4")
    with pytest.raises(ValueError, match="unknown scope 'row'"):
        mask_(net, sparsity=0.5, scope="row")
    with pytest.raises(ValueError, match="scores whole units, not single weights"):
        mask_(net, sparsity=0.5, criterion="geometric_median")
    with pytest.raises(ValueError, match="skip names 'fx'"):
        mask_(net, sparsity=0.5, skip=["fx"])
    with pytest.raises(ValueError, match=r"sparsity names 'fc\.bias'"):
        mask_(net, sparsity={"fc.bias": 0.5})
    with pytest.raises(ValueError, match="prune_vector"):
        mask_(nn.BatchNorm1d(3), sparsity=0.5)
    with pytest.raises(ScoreError, match="needs data"):
        mask_(net, sparsity=0.5, criterion="taylor_weight")
    net.fc.weight.requires_grad_(False)
    with pytest.raises(ScoreError, match=r"reaches fc\.weight.*skip"):
        mask_(net, sparsity=0.5, criterion="snip", data=batches, loss_fn=F.cross_entropy)
    with pytest.raises(ScoreError, match="meta device"):
        mask_(net.to("meta"), sparsity=0.5)


def test_empty_tensors_are_left_alone() -> None:
    with pytest.warns(UserWarning, match="Initializing zero-element"):
        model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(0, 3)])
    assert list(mask_(model, sparsity=0.5).kept) == ["0.weight"]


def test_statistics_count_masks_and_plain_zeros(net: nn.Module) -> None:
    mask_(net, sparsity={"fc.weight": 0.5})
    with torch.no_grad():
        net.conv.weight[0] = 0
    rows = {row.name: row for row in sparsity(net)}
    assert rows["fc.weight"].zeros == 12 and rows["first.weight"].zeros == 0
    assert rows["conv.weight"].to_json() == {
        "name": "conv.weight",
        "weights": 288,
        "zeros": 36,
        "sparsity": 0.125,
    }
    fold_(net)
    assert {row.name: row for row in sparsity(net)} == rows
