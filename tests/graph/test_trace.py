"""What a trace finds, and that it leaves the model as it was."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import MODELS, Attention, Shuffle, Tied, image, tokens
from torch import Tensor, nn

from secateur import trace
from secateur.core.expressions import Field, Size


def sizes(graph: Any) -> dict[str, int]:
    return {group.id: group.size for group in graph.free}


def test_a_residual_stream_is_one_group() -> None:
    make, inputs = MODELS["residual"]
    graph = trace(make(), inputs())
    assert sizes(graph) == {"stem.weight[0]": 8, "inner.weight[0]": 6}
    members = {member.tensor for member in graph.group("stem.weight[0]").members}
    assert {"outer.weight", "norm.running_mean", "head.weight"} <= members


def test_heads_are_found_without_being_declared() -> None:
    graph = trace(Attention(), tokens())
    kv = graph.group("q.weight[0].0")
    assert (kv.size, kv.structural) == (2, True)  # two key-value heads: a matter of design
    assert {member.tensor for member in kv.members} >= {"k.weight", "v.weight", "out.weight"}
    assert graph.group("up.weight[0]").size == 32
    typed = [r for r in graph.relations if Field("", "kv_heads") in (r.left, r.right)]
    assert any(isinstance(r.right, Size) and r.right.dim == (kv.axis,) for r in typed)


def test_shuffled_halves_are_one_axis() -> None:
    graph = trace(Shuffle(), image())
    (group,) = graph.free
    assert group.size == 6
    members = {member.tensor for member in group.members}
    assert members == {"branch.weight", "branch.bias", "head.weight", "stem.weight", "stem.bias"}


def test_the_model_is_left_as_it_was() -> None:
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear, self.norm = nn.Linear(4, 6), nn.BatchNorm1d(6)
            self.cache: dict[str, Tensor] = {}
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            self.cache["x"] = x
            self.width = x.shape[1]
            return self.norm(self.linear(x))

    model = Caching().train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    identities = {name: id(p) for name, p in model.named_parameters()}
    trace(model, torch.randn(2, 4))
    assert model.training and model.norm.training
    assert model.cache == {} and model.calls == 0 and "width" not in vars(model)
    assert {name: id(p) for name, p in model.named_parameters()} == identities
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert "__getattribute__" not in nn.Module.__dict__


def test_the_model_is_left_as_it_was_when_its_forward_fails() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(5, 2))
    with pytest.raises(Exception, match="forward of Sequential failed"):
        trace(model, torch.randn(2, 4))
    assert not model[0].weight.is_meta
    assert "__getattribute__" not in nn.Module.__dict__


def test_heads_used_only_in_training_are_coupled_too() -> None:
    class Auxiliary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head, self.aux = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Any:
            x = self.body(x).relu()
            return (self.head(x), self.aux(x)) if self.training else self.head(x)

    graph = trace(Auxiliary(), torch.randn(2, 4))
    assert {m.tensor for m in graph.group("body.weight[0]").members} >= {"aux.weight"}
    assert graph.group("aux.weight[0]").pinned == "an output of the model"
    assert [call.module for call in graph.calls] == ["body", "head", ""]


def test_unused_parameters_are_pinned_with_the_reason() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.spare = nn.Linear(4, 8), nn.Linear(8, 2), nn.Linear(4, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x))

    graph = trace(Unused(), torch.randn(2, 4))
    assert graph.group("spare.weight[0]").pinned == "no operator of the forward uses it"


def test_tied_weights_count_once_and_vocabularies_are_pinned() -> None:
    graph = trace(Tied(), tokens())
    assert graph.tensors["embed.weight"].aliases == ("head.weight",)
    assert sizes(graph) == {"embed.weight[1]": 8, "inner.weight[0]": 12}


def test_a_forward_that_needs_values_is_traced_with_real_tensors() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x if x.sum() > 0 else -x)

    assert sizes(trace(Branching(), torch.randn(2, 4))) == {"a.weight[0]": 8}


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_is_the_same_each_time(name: str) -> None:
    make, inputs = MODELS[name]
    model, x = make(), inputs()
    first, second = trace(model, x), trace(model, x)
    assert first.hash == second.hash
    assert first.to_json() == second.to_json()


def test_weights_on_meta_are_enough() -> None:
    with torch.device("meta"):
        model = Attention()
    graph = trace(model, tokens())
    assert graph.hash == trace(Attention(), tokens()).hash


def test_keyword_inputs_and_nested_outputs() -> None:
    class Keywords(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, *, x: Tensor, scale: float = 1.0) -> dict[str, Any]:
            hidden = self.a(x)
            return {"logits": self.b(hidden), "extra": [hidden.sum(1) * scale]}

    graph = trace(Keywords(), {"x": torch.randn(2, 4), "scale": 2.0})
    assert sizes(graph) == {"a.weight[0]": 8}
    assert len(graph.outputs) == 2


def test_flags_say_what_runs_over_an_axis() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.a(x))
            return self.b(x + x.shape[-1] ** -0.5)  # what is multiplied, a weight would absorb

    (group,) = trace(Normed(), torch.randn(2, 4)).free
    assert group.flags == {"renormalised", "scaled"}
    assert any("layer norm" in note for note in group.notes)
    assert any("test_trace.py" in note for note in group.notes)


def test_path_conditions_are_kept() -> None:
    class Conditional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            return self.b(x.relu() if x.shape[1] > 5 else x)

    graph = trace(Conditional(), torch.randn(2, 4))
    (relation,) = [r for r in graph.relations if r.op == "gt"]
    assert relation.right == 5 and relation.holds and "test_trace.py" in relation.where
