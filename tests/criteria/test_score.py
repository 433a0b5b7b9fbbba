"""Scoring leaves the model alone, and each thing that can go wrong says what to do."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secateur.core.dims import Axis, Concat
from secateur.core.errors import PlanMismatchError, ScoreError
from secateur.core.graph import Graph, Group, Member, TensorType
from secateur.criteria.matrices import unit_matrix
from secateur.criteria.score import score

LOSS = nn.functional.cross_entropy


def test_model_is_untouched_by_gradients(case) -> None:
    case.model.train()
    case.model.bn.eval()  # frozen by the user
    case.model.fc.weight.grad = torch.ones_like(case.model.fc.weight)
    before = {name: tensor.clone() for name, tensor in case.model.state_dict().items()}
    score(case.graph, case.model, criterion="taylor", data=case.batches, loss_fn=LOSS)
    assert case.model.training and case.model.conv1.training and not case.model.bn.training
    assert torch.equal(case.model.fc.weight.grad, torch.ones_like(case.model.fc.weight))
    assert case.model.conv1.weight.grad is None
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_flags_come_back_after_an_error(case) -> None:
    case.model.train()
    with pytest.raises(ScoreError):
        score(case.graph, case.model, criterion="taylor", data=[torch.zeros(1)], loss_fn=LOSS)
    assert case.model.training


def test_dict_batches_use_the_models_own_loss(case) -> None:
    net = case.model

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x, labels=None):
            return SimpleNamespace(loss=None if labels is None else LOSS(self.net(x), labels))

    model = WithLoss()
    graph = _prefixed(case.graph, "net.", model)
    dicts = [{"x": x, "labels": y} for x, y in case.batches]
    found = score(graph, model, criterion="gradient", data=dicts)
    expected = score(case.graph, net, criterion="gradient", data=case.batches, loss_fn=LOSS)
    torch.testing.assert_close(found["conv1"], expected["conv1"])
    with pytest.raises(ScoreError, match=r"no \.loss; add labels"):
        score(graph, model, criterion="gradient", data=[{"x": case.batches[0][0]}])


def _prefixed(graph: Graph, prefix: str, model: nn.Module) -> Graph:
    from secateur.core.fingerprint import fingerprint

    groups = tuple(
        replace(g, members=tuple(Member(prefix + m.tensor, m.dim) for m in g.members))
        for g in graph.groups
    )
    tensors = {prefix + name: kind for name, kind in graph.tensors.items()}
    return replace(graph, groups=groups, tensors=tensors, fingerprint=fingerprint(model))


def test_gradients_without_data_say_the_line_to_type(case) -> None:
    with pytest.raises(ScoreError, match=r"data=loader, loss_fn="):
        score(case.graph, case.model, criterion="taylor")
    with pytest.raises(ScoreError, match=r"pass loss_fn="):
        score(case.graph, case.model, criterion="taylor", data=case.batches)
    with pytest.raises(ScoreError, match="no batch"):
        score(case.graph, case.model, criterion="taylor", data=[], loss_fn=LOSS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_unsound_weights_are_named(case, value) -> None:
    with torch.no_grad():
        case.model.bn.weight[2] = value
    with pytest.raises(ScoreError, match=r"bn\.weight holds NaN or infinite"):
        score(case.graph, case.model)
    score(case.graph, case.model, criterion="random")


def test_unsound_loss_names_the_batch(case) -> None:
    bad = [case.batches[0], (case.batches[1][0] * float("nan"), case.batches[1][1])]
    with pytest.raises(ScoreError, match="loss of calibration batch 1 is nan"):
        score(case.graph, case.model, criterion="taylor", data=bad, loss_fn=LOSS)


def test_loss_that_is_no_single_number(case) -> None:
    with pytest.raises(ScoreError, match=r"a tensor of shape \(4, 5\)"):
        score(case.graph, case.model, criterion="taylor", data=case.batches, loss_fn=lambda o, y: o)


def test_weights_on_meta(case) -> None:
    model = case.model.to("meta")
    with pytest.raises(ScoreError, match=r"meta device.*criterion='random'"):
        score(case.graph, model)
    assert score(case.graph, model, criterion="random")["conv1"].shape == (8,)


def test_another_model_is_refused(case) -> None:
    case.model.fc = nn.Linear(25, 5)
    with pytest.raises(PlanMismatchError, match=r"fc\.weight has shape \(5, 24\).*\(5, 25\)"):
        score(case.graph, case.model)
    case.model.fc = nn.Sequential(nn.Linear(24, 5))
    with pytest.raises(PlanMismatchError, match=r"fc\.weight.*absent"):
        score(case.graph, case.model)


def test_same_shapes_in_another_class_are_refused(case) -> None:
    class Other(type(case.model)):
        pass

    with pytest.raises(PlanMismatchError, match="modules or tensors of Other differ"):
        score(case.graph, Other())


def test_frozen_members_count_without_gradient(case) -> None:
    for name in ("conv1.weight", "conv1.bias", "bn.bias", "conv2.weight"):
        case.model.get_parameter(name).requires_grad_(False)
    found = score(case.graph, case.model, criterion="gradient", data=case.batches, loss_fn=LOSS)
    mean = torch.zeros(8)
    for x, y in case.batches:
        (g,) = torch.autograd.grad(LOSS(case.model(x), y), case.model.bn.weight)
        mean += g.abs() / 3
    torch.testing.assert_close(found["conv1"], mean.double(), rtol=1e-5, atol=1e-6)


def test_group_without_any_gradient_is_named(case) -> None:
    for name, parameter in case.model.named_parameters():
        parameter.requires_grad_(name in ("fc.weight", "fc.bias"))
    with pytest.raises(ScoreError, match="no gradient reaches group 'conv1'"):
        score(case.graph, case.model, criterion="taylor", data=case.batches, loss_fn=LOSS)
    case.model.requires_grad_(False)
    with pytest.raises(ScoreError, match="no parameter of the model requires a gradient"):
        score(case.graph, case.model, criterion="taylor", data=case.batches, loss_fn=LOSS)


def test_half_precision_weights_are_scored_in_float32(case) -> None:
    expected = score(case.graph, case.model.half())["conv2"]
    torch.testing.assert_close(score(case.graph, case.model.float())["conv2"], expected)


def test_group_without_a_parameter_has_no_score(case) -> None:
    groups = tuple(
        replace(g, members=(Member("bn.running_mean", 0),)) if g.id == "conv1" else g
        for g in case.graph.groups
    )
    assert list(score(replace(case.graph, groups=groups), case.model)) == ["conv2"]


def test_unit_matrix_of_concatenated_and_repeated_axes() -> None:
    # a dim of 2 * (A | B) with A of 2 units, B of 3: A's units are rows 0, 1 and 5, 6
    two, a, b = Axis(0, 2), Axis(1, 2), Axis(2, 3)
    dims = ((two, Concat(((a,), (b,)))), (Axis(3, 2),))
    group = Group("a", a, (Member("w", 0),))
    graph = Graph(
        (group,), {"w": TensorType(dims, 4, True, True)}, (), (), (), {}, (), (), {}, fingerprint=""
    )
    w = torch.arange(20.0).reshape(10, 2)
    found = unit_matrix(graph, group, group.members[0], w)
    assert found.tolist() == [[0, 1, 10, 11], [2, 3, 12, 13]]
