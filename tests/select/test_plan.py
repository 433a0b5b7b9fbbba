"""The plan as a value: what it keeps, what it records, what it refuses."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secateur.core.errors import PlanMismatchError
from secateur.core.lookup import find, names
from secateur.core.plan import Plan
from secateur.cost.counted import cost
from secateur.select.constraints import Constraints
from secateur.select.plan import plan

SELECTORS = names("secateur.select")


@pytest.fixture
def graph(make_chain):
    return make_chain([3, 10, 20, 40, 5])


@pytest.fixture
def scores(graph, make_scores):
    return make_scores(graph)


def test_selectors_are_found_by_their_file() -> None:
    assert {"uniform", "global"} <= set(SELECTORS)
    for name in SELECTORS:
        module = find("secateur.select", name, kind="selector")
        assert module.ladder({"a": torch.ones(4)})(0.0) == {"a": 4}, (
            "a file of select/ that is no selector belongs in NOT_EXTENSIONS"
        )


def test_half_by_hand(make_chain) -> None:
    # 4 -> 6 -> 2: each hidden unit costs 4 + 2 parameters, so half of 36 is 3 units
    graph = make_chain([4, 6, 2])
    scores = {"w1": torch.tensor([0.5, 0.9, 0.1, 0.5, 0.5, 0.2])}
    found = plan(graph, scores, budget="params=50%")
    assert found.keep == {"w1": (0, 1, 3)}  # 0.9, then the first two of three equal ones
    assert (found.before.params, found.after.params) == (36, 18)
    assert list(found.tensors) == ["l0.weight", "l1.weight"]
    assert found.shape("l0.weight") == (3, 4)
    changed = {str(c.field): (c.before, c.after) for c in found.changes}
    assert changed == {"l0.out_features": (6, 3), "l1.in_features": (6, 3)}
    assert found.exact == ("w1",) and not found.inexact and not found.notes
    assert (found.fingerprint, found.graph_hash) == (graph.fingerprint, graph.hash)


@pytest.mark.parametrize("selector", SELECTORS)
def test_plan_is_deterministic_and_survives_json(graph, scores, selector) -> None:
    options = {"budget": "macs=40%", "selector": selector, "settings": {"criterion": "l2"}}
    first, again = plan(graph, scores, **options), plan(graph, scores, **options)
    assert first.to_json() == again.to_json()
    assert Plan.from_json(first.to_json()) == first
    assert first.settings["criterion"] == "l2"
    assert first.settings["budget"] == "macs=40%"
    assert first.settings["selector"] == selector


@pytest.mark.parametrize("selector", SELECTORS)
def test_highest_scores_stay(graph, scores, selector) -> None:
    found = plan(graph, scores, budget="params=30%", selector=selector)
    assert found.keep
    for id, kept in found.keep.items():
        gone = [u for u in range(graph.group(id).size) if u not in kept]
        assert list(kept) == sorted(set(kept)) and gone
        assert scores[id][list(kept)].min() >= scores[id][gone].max()


def test_predicted_cost_is_that_of_the_counts(graph, scores) -> None:
    found = plan(graph, scores, budget="params=60%")
    assert found.before == cost(graph)
    assert found.after == cost(graph, found.counts())


def test_whole_model_already_meets_the_budget(graph, scores) -> None:
    found = plan(graph, scores, budget="params=100%")
    assert not found.keep and not found.tensors and not found.changes
    assert found.after == found.before
    assert "already" in found.notes[0]


def test_keep_everything_is_the_identity(graph, scores) -> None:
    assert not plan(graph, scores, keep=1.0).keep


def test_pinned_groups_are_never_cut(graph, scores) -> None:
    everything = {**scores, "w0": torch.rand(3), "w4": torch.rand(5)}
    assert set(plan(graph, everything, budget="params=5%").keep) == {"w1", "w2", "w3"}


def test_structural_groups_only_when_asked(graph, scores) -> None:
    groups = tuple(replace(g, structural=g.id == "w2") for g in graph.groups)
    graph = replace(graph, groups=groups)
    found = plan(graph, scores, keep=0.5)
    assert set(found.keep) == {"w1", "w3"}
    assert found.notes == ("w2: left whole, structural; include_structural=True cuts it",)
    assert set(plan(graph, scores, keep=0.5, include_structural=True).keep) == {"w1", "w2", "w3"}
    assert set(plan(graph, scores, keep=0.5, groups=["w2"]).keep) == {"w2"}


def test_inexact_groups_say_why(graph, scores) -> None:
    groups = tuple(
        replace(g, flags=frozenset({"renormalised"}), notes=("a LayerNorm over it",))
        if g.id == "w2"
        else g
        for g in graph.groups
    )
    found = plan(replace(graph, groups=groups), scores, keep=0.5)
    assert found.exact == ("w1", "w3")
    assert found.inexact == {"w2": "a LayerNorm over it"}


def test_group_without_score_is_left_whole_and_noted(graph, scores) -> None:
    del scores["w2"]
    found = plan(graph, scores, keep=0.5)
    assert set(found.keep) == {"w1", "w3"}
    assert found.notes == ("w2: left whole, it has no score",)


def test_scores_of_another_graph_are_refused(graph, scores, make_chain, make_scores) -> None:
    with pytest.raises(PlanMismatchError, match=r"'w1' has scores of shape \(7,\) and 10 units"):
        plan(graph, make_scores(make_chain([3, 7, 5])), keep=0.5)
    with pytest.raises(PlanMismatchError, match="no such group"):
        plan(graph, {**scores, "other": torch.rand(4)}, keep=0.5)
    with pytest.raises(ValueError, match="'w1' hold NaN"):
        plan(graph, {**scores, "w1": torch.full((10,), torch.nan)}, keep=0.5)


def test_options_that_make_no_sense(graph, scores) -> None:
    with pytest.raises(ValueError, match="nothing says how much to remove"):
        plan(graph, scores)
    with pytest.raises(ValueError, match="did you mean 'uniform'"):
        plan(graph, scores, keep=0.5, selector="unifrom")
    with pytest.raises(ValueError, match=r"keep=0\.5 and sparsity=0\.5 say the same"):
        Constraints(keep=0.5, sparsity=0.5)
    for wrong in ({"keep": 0.0}, {"sparsity": 1.0}, {"min_units": 0}, {"multiple_of": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Constraints(**wrong)
    with pytest.raises(ValueError, match="normalise"):
        Constraints(normalise="median")


def test_constraints_and_options_combine(graph, scores) -> None:
    rules = Constraints(min_units=8)
    found = plan(graph, scores, budget="params=20%", constraints=rules, multiple_of=4)
    assert found.settings["min_units"] == 8
    assert all(len(kept) >= 8 and len(kept) % 4 == 0 for kept in found.keep.values())
