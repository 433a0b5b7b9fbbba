"""The main law: a cut model's outputs equal those of the original with the same units zeroed."""

from __future__ import annotations

import pytest
import torch
from models import MODELS
from torch import Tensor, nn

from secateur import cut, plan, score, trace, verify
from secateur.core.errors import ScoreError
from secateur.core.lookup import names


def built(name: str) -> tuple[nn.Module, Tensor]:
    make, inputs = MODELS[name]
    return make().eval(), inputs()


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("keep", [0.5, 0.3])
def test_half_of_everything(name: str, keep: float) -> None:
    model, inputs = built(name)
    before = [tensor.clone() for tensor in model.state_dict().values()]
    graph = trace(model, inputs)
    chosen = plan(graph, score(graph, model, criterion="random"), keep=keep)
    small = cut(model, chosen)
    proof = verify(model, small, chosen, inputs, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9
    assert proof.groups_checked == len(chosen.keep) > 0
    assert proof.groups_shape_only == 0
    assert proof.module_calls > 0
    assert not graph.unknown_ops
    after = list(model.state_dict().values())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("name", MODELS)
def test_predicted_cost_is_counted_cost(name: str) -> None:
    model, inputs = built(name)
    graph = trace(model, inputs)
    chosen = plan(graph, score(graph, model, criterion="l2"), keep=0.5)
    small = cut(model, chosen)
    assert sum(p.numel() for p in small.parameters()) == chosen.after.params < chosen.before.params
    again = plan(trace(small, inputs), {}, keep=1.0)
    assert again.before.macs == chosen.after.macs < chosen.before.macs


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("criterion", [n for n in names("secateur.criteria") if n[:6] != "block_"])
def test_every_criterion_on_every_model(name: str, criterion: str) -> None:
    model, inputs = built(name)
    graph = trace(model, inputs)
    classes = model(inputs).shape[-1]
    labels = torch.randint(0, classes, model(inputs).shape[:-1])
    loss = nn.CrossEntropyLoss()
    try:
        scores = score(
            graph,
            model,
            criterion=criterion,
            data=[(inputs, labels)],
            loss_fn=lambda out, y: loss(out.flatten(0, -2), y.flatten()),
        )
    except ScoreError as error:
        assert criterion == "norm_scale" and "scales of normalisations" in str(error)
        pytest.skip("no group goes through a normalisation")
    chosen = plan(graph, scores, keep=0.5, selector="global")
    verify(model, cut(model, chosen), chosen, inputs, dtype=torch.float64)


def test_keeping_everything_is_the_identity() -> None:
    model, inputs = built("residual")
    graph = trace(model, inputs)
    same = cut(model, plan(graph, score(graph, model, criterion="l1"), keep=1.0))
    torch.testing.assert_close(same(inputs), model(inputs), rtol=0, atol=0)
