"""The proof: what it checks by numbers, what it corrects, and that it can fail."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import secateur as sc


def planned(model: nn.Module, inputs: Any, **options: Any) -> tuple[sc.Graph, sc.Plan, nn.Module]:
    graph = sc.trace(model, inputs)
    plan = sc.plan(graph, sc.score(graph, model, criterion="random"), **options)
    return graph, plan, sc.cut(model, plan)


def mlp() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), torch.randn(5, 4)


class Normed(nn.Module):
    """Everything that runs over its width: norms, a mean, a softmax and a scale."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(5, width), nn.LayerNorm(width)
        self.rms, self.group = nn.RMSNorm(width), nn.GroupNorm(2, width)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rms(self.norm(self.stem(x)))
        x = self.group(x) * x.softmax(-1) - x.mean(-1, keepdim=True)
        x = (F.elu(x) + 1) * x.shape[-1] ** -0.5
        return self.head(x / x.sum(-1, keepdim=True))


def test_norms_means_and_scales_are_proved_over_what_is_kept() -> None:
    model, inputs = Normed(), torch.randn(4, 5)
    graph, plan, small = planned(model, inputs, keep=0.5)
    assert {"renormalised", "scaled"} <= graph.group("stem.weight[0].1").flags
    proof = sc.verify(model, small, plan, inputs, dtype=torch.float64)
    assert len(proof.corrected) == proof.groups_checked == len(plan.keep) > 0
    assert proof.groups_shape_only == 0
    assert proof.max_rel_error < 1e-12
    assert proof.corrected == plan.inexact and proof.reasons == {}


def test_a_wrong_index_is_found() -> None:
    model, inputs = mlp()
    _, plan, small = planned(model, inputs, keep=0.5)
    with torch.no_grad():
        small[2].weight.copy_(small[2].weight.flip(1))
    with pytest.raises(sc.ProofError, match="differs from the masked original"):
        sc.verify(model, small, plan, inputs)


def test_a_wrong_index_is_found_where_norms_are_corrected() -> None:
    model, inputs = Normed(), torch.randn(4, 5)
    _, plan, small = planned(model, inputs, keep=0.5)
    with torch.no_grad():
        small.head.weight.copy_(small.head.weight.flip(1))
    with pytest.raises(sc.ProofError, match=r"head\.weight of the cut model is not what the plan"):
        sc.verify(model, small, plan, inputs)


def test_a_plan_that_keeps_other_units_is_found() -> None:
    model, inputs = mlp()
    _, plan, small = planned(model, inputs, keep=0.5)
    (id,) = plan.keep
    others = tuple(u for u in range(8) if u not in plan.keep[id])
    with pytest.raises(sc.ProofError):
        sc.verify(model, small, replace(plan, keep={id: others}), inputs)


def test_nan_outputs_are_no_proof() -> None:
    model, inputs = mlp()
    _, plan, small = planned(model, inputs, keep=0.5)
    with pytest.raises(sc.ProofError, match="NaN"):
        sc.verify(model, small, plan, inputs * float("nan"))


def test_a_model_of_another_width_is_found_by_its_shapes() -> None:
    model, inputs = mlp()
    _, plan, _ = planned(model, inputs, keep=0.5)
    with pytest.raises(sc.CutError, match=r"output of 0 \(Linear\) has shape \(5, 8\).*predicted"):
        sc.verify(model, copy.deepcopy(model), plan, inputs)


def test_the_original_is_left_alone() -> None:
    model, inputs = Normed().train(), torch.randn(4, 5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, plan, small = planned(model, inputs, keep=0.5)
    sc.verify(model, small, plan, inputs)
    assert model.training and small.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_the_caller_s_tensors_are_left_as_they_were() -> None:
    class Held(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.norm = nn.Embedding(7, 12), nn.LayerNorm(12)
            self.out = nn.Linear(12, 2)
            self.offset = torch.arange(3)  # neither a parameter nor a buffer

        def forward(self, ids: Tensor) -> Tensor:
            x = self.norm(self.embed(ids + self.offset))
            out: Tensor = self.out(x * (ids.sum() > 0)) if ids.sum() > -1 else x
            return out

    model, ids = Held(), torch.tensor([[1, 2, 3]])
    _, plan, small = planned(model, ids, keep=0.5)
    assert plan.inexact
    sc.verify(model, small, plan, ids)
    tensors = [ids, model.offset, *model.state_dict(keep_vars=True).values()]
    assert all(vars(tensor) == {} for tensor in tensors)


def test_a_cache_that_a_model_returns_gets_smaller_with_its_heads() -> None:
    class Cache:
        def __init__(self) -> None:
            self.keys: list[Tensor] = []

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.key, self.out = nn.Linear(6, 8), nn.Linear(8, 6)

        def forward(self, x: Tensor, cache: Cache) -> Tensor:
            cache.keys.append(self.key(x))
            out: Tensor = self.out(cache.keys[-1].relu())
            return out

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = Layer()

        def forward(self, x: Tensor) -> tuple[Tensor, Cache]:
            cache = Cache()
            return self.layer(x, cache), cache

    model, inputs = Model(), torch.randn(2, 6)
    _, plan, small = planned(model, inputs, keep=0.5)
    assert list(plan.keep) == ["layer.key.weight[0]"]
    assert small(inputs)[1].keys[0].shape == (2, 4)
    proof = sc.verify(model, small, plan, inputs, dtype=torch.float64)
    assert proof.groups_checked == 1 and proof.max_rel_error < 1e-12
