"""What is shared out and why not, where ranks meet, and the plan as a value."""

from __future__ import annotations

import itertools

import pytest
import torch
from comparing import case_of
from hypothesis import given
from hypothesis import strategies as st
from networks import SMALL
from torch import Tensor, nn

import secateur as sc
from secateur.core.errors import EngineError, PlanMismatchError
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.independent import heaviest
from secateur.engines.tensor_parallel.regions import Reading, Spot
from secateur.engines.tensor_parallel.value import TensorParallelPlan, shares


def test_where_the_ranks_of_a_decoder_meet() -> None:
    """Heads and the gated MLP: the norm of each head's width is read by all heads, the output's
    bias is added to a partial sum in a functional call, and attention is given one tensor."""
    plan = case_of(SMALL["decoder"](), size=2).plan
    assert plan.bounds == {
        "attention.q.weight[0].0": (0, 2, 4),
        "gate_up.weight[0]": (0, 10, 20),
    }
    meetings = plan.meetings
    assert meetings.sums == {Spot("attention", True, None), Spot("down", True, None)}
    assert meetings.copies == {Spot("attention", False, 0), Spot("gate_up", False, 0)}
    assert meetings.gradients == {
        Reading("attention.q_norm", "attention.q_norm.weight"),
        Reading("attention.q_norm", "attention.q_norm.bias"),
    }
    assert meetings.portions == {
        Reading("attention", "attention.out.bias"),
        Reading("down", "down.bias"),
    }
    assert "layer norm over it" in plan.replicated["embed.weight[1]"]


def test_keys_that_all_heads_share_have_their_gradients_summed_at_their_projection() -> None:
    meetings = case_of(SMALL["one_kv_head"](), size=2).plan.meetings
    assert Spot("attention.k", True, None) in meetings.copies
    assert Spot("attention.v", True, None) in meetings.copies


def test_of_a_chain_every_second_width_is_shared_out() -> None:
    plan = case_of(SMALL["plain_chain"](), size=2).plan
    assert set(plan.bounds) == {"0.weight[0]", "4.weight[0]"}


class Mixed(nn.Module):
    """What must not be shared out: a softmax over the width, a cumulative sum along it, a sum of it
    that meets something else before a module returns it."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.first, self.second = kind, nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        if self.kind == "softmax":
            y = y.softmax(-1)
        if self.kind == "cumsum":
            y = y.cumsum(-1)
        if self.kind == "norm":
            y = y / y.norm(dim=-1, keepdim=True)
        if self.kind == "early":
            return torch.relu(nn.functional.linear(y, self.second.weight) + x)
        return self.second(y)


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("softmax", "softmax over it"),
        ("cumsum", "cumsum"),
        ("norm", "norm in the model is no sum"),
        ("early", "adds what is no parameter"),
    ],
)
def test_what_is_not_known_to_be_right_stays_whole(kind: str, why: str) -> None:
    plan = case_of((Mixed(kind), torch.randn(2, 3)), size=2).plan
    assert not plan.bounds and not plan.meetings.sums
    assert why in plan.replicated["first.weight[0]"]


class Twice(nn.Module):
    """One module called in two ways: with what is shared out, and with what is not."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(x))) + self.down(torch.sigmoid(x))


def test_a_module_called_in_two_ways_stays_whole() -> None:
    plan = case_of((Twice(), torch.randn(2, 4)), size=2).plan
    assert not plan.bounds


def test_a_plan_is_a_value() -> None:
    model, inputs = SMALL["decoder"]()
    graph = sc.trace(model, inputs)
    plan = tensor_parallel_plan(model, graph, inputs, size=3)
    again = tensor_parallel_plan(model, graph, inputs, size=3)
    assert plan.to_json() == again.to_json()
    assert TensorParallelPlan.from_json(plan.to_json()) == plan
    assert plan.bounds["attention.q.weight[0].0"] == (0, 2, 3, 4)
    with pytest.raises(PlanMismatchError, match="no tensor-parallel plan"):
        TensorParallelPlan.from_json("{}")
    with pytest.raises(PlanMismatchError, match="format 9"):
        TensorParallelPlan.from_json(plan.to_json().replace('"format": 1', '"format": 9'))


def test_multiples_and_too_many_ranks() -> None:
    model = nn.Sequential(nn.Linear(3, 20), nn.ReLU(), nn.Linear(20, 2))
    graph, x = sc.trace(model, torch.randn(2, 3)), torch.randn(2, 3)
    plan = tensor_parallel_plan(model, graph, x, size=2, multiple_of=8)
    assert plan.bounds == {"0.weight[0]": (0, 8, 20)}
    none = tensor_parallel_plan(model, graph, x, size=3, multiple_of=8)
    assert none.replicated["0.weight[0]"] == "20 units in steps of 8 are too few for 3 ranks"
    with pytest.raises(EngineError, match="not traced from this"):
        tensor_parallel_plan(nn.Linear(3, 2), graph, x, size=2)
    with pytest.raises(EngineError, match="one rank or more"):
        tensor_parallel_plan(model, graph, x, size=0)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4))
def test_shares_are_nearly_equal(units: int, size: int, step: int) -> None:
    bounds = shares(units, size, step=step)
    assert (bounds[0], bounds[-1], len(bounds)) == (0, units, size + 1)
    counts = [stop - start for start, stop in itertools.pairwise(bounds)]
    assert max(counts[:-1], default=0) - min(counts[:-1], default=0) <= step
    assert all(count % step == 0 for count in counts[:-1])


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.data())
def test_the_heaviest_choice_is_found(weights: list[int], data: st.DataObject) -> None:
    pairs = list(itertools.combinations(range(len(weights)), 2))
    edges = data.draw(st.sets(st.sampled_from(pairs))) if pairs else set()
    conflicts = {
        n: {b if a == n else a for a, b in edges if n in (a, b)} for n in range(len(weights))
    }
    chosen = heaviest({n: float(w) for n, w in enumerate(weights)}, conflicts)
    assert not any({a, b} <= set(chosen) for a, b in edges)
    best = max(
        sum(weights[n] for n in some)
        for k in range(len(weights) + 1)
        for some in itertools.combinations(range(len(weights)), k)
        if not any({a, b} <= set(some) for a, b in edges)
    )
    assert sum(weights[n] for n in chosen) == best
