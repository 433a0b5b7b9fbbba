"""Stopping rules and constraints, alone and combined; the count solver's part in them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secateur.core.errors import BudgetError
from secateur.core.expressions import Binary, Field, Relation, Size
from secateur.core.lookup import names
from secateur.core.plan import Plan
from secateur.select.constraints import Constraints
from secateur.select.plan import plan
from secateur.select.problem import make_problem

SELECTORS = names("secateur.select")


@pytest.fixture
def graph(make_chain):
    return make_chain([3, 16, 16, 48, 16, 5])


@pytest.fixture
def scores(graph, make_scores):
    return make_scores(graph)


def kept(found) -> dict[str, int]:
    return {id: len(units) for id, units in found.keep.items()}


def test_keep_and_sparsity_are_the_share_of_every_group(graph, scores) -> None:
    assert kept(plan(graph, scores, keep=0.3)) == {"w1": 5, "w2": 5, "w3": 15, "w4": 5}
    assert kept(plan(graph, scores, sparsity=0.7)) == {"w1": 5, "w2": 5, "w3": 15, "w4": 5}


def test_threshold_removes_what_scores_below(graph, scores) -> None:
    found = plan(graph, scores, threshold=0.4)
    for group in graph.free:
        expected = [u for u in range(group.size) if scores[group.id][u] >= 0.4]
        assert list(found.keep[group.id]) == expected


def test_threshold_above_all_leaves_the_fewest_units(graph, scores) -> None:
    assert kept(plan(graph, scores, threshold=9.0, min_units=5)) == dict.fromkeys(scores, 5)


def test_threshold_and_keep_both_limit(make_chain) -> None:
    graph = make_chain([2, 8, 8, 2])
    scores = {"w1": torch.arange(8.0), "w2": torch.arange(8.0) * 10}
    # w1: two reach 6, half is four; w2: seven reach 6
    assert kept(plan(graph, scores, threshold=6.0, keep=0.5)) == {"w1": 4, "w2": 7}


@pytest.mark.parametrize("selector", SELECTORS)
def test_no_group_below_min_units(graph, scores, selector) -> None:
    found = plan(graph, scores, budget="params=15%", min_units=6, selector=selector)
    assert min(kept(found).values()) >= 6


def test_small_groups_are_left_whole_and_noted(make_chain, make_scores) -> None:
    graph = make_chain([2, 4, 12, 2])
    found = plan(graph, make_scores(graph), keep=0.5, min_units=5)
    assert kept(found) == {"w2": 6}
    assert found.notes == ("w1: left whole, its 4 units are needed for min_units=5",)


@pytest.mark.parametrize("selector", SELECTORS)
def test_multiples(graph, scores, selector) -> None:
    found = plan(graph, scores, budget="params=40%", multiple_of=8, selector=selector)
    assert found.keep and all(count % 8 == 0 for count in kept(found).values())
    assert found.after.params <= 0.4 * found.before.params


def test_group_without_a_smaller_multiple_stays_whole(make_chain, make_scores) -> None:
    graph = make_chain([2, 8, 12, 2])
    found = plan(graph, make_scores(graph), keep=0.5, multiple_of=8)
    assert kept(found) == {"w2": 8}
    assert found.notes == ("w1: left whole, its 8 units are needed for multiple_of=8",)


def test_kept_modules_keep_their_shape(graph, scores) -> None:
    found = plan(graph, scores, keep=0.5, keep_modules=["l1", "l4*"])
    assert set(kept(found)) == {"w3"}  # l1 has w1 and w2, l4 has w4
    assert not {"l1.weight", "l4.weight"} & set(found.tensors)
    assert [note.split(":")[0] for note in found.notes] == ["w1", "w2", "w4"]
    assert "keep_modules='l4*'" in found.notes[-1]


def test_patterns_that_match_nothing(graph, scores) -> None:
    with pytest.raises(ValueError, match="keep_modules: 'l9' matches nothing; there are: l0, l1"):
        plan(graph, scores, keep=0.5, keep_modules=["l9"])
    with pytest.raises(ValueError, match="equal: 'layer' matches nothing"):
        plan(graph, scores, keep=0.5, equal=["layer"])
    with pytest.raises(ValueError, match="groups: 'w77' matches nothing"):
        plan(graph, scores, keep=0.5, groups=["w77"])


def test_only_the_named_groups(graph, scores) -> None:
    found = plan(graph, scores, keep=0.5, groups=["w[12]", "w5"])
    assert set(kept(found)) == {"w1", "w2"}
    assert found.notes == ("w5: not cut although asked for, the model's output",)


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("share", [20, 45, 80])
def test_equal_groups_keep_equal_counts(graph, scores, selector, share) -> None:
    found = plan(graph, scores, budget=f"params={share}%", equal=["*"], selector=selector)
    sizes = kept(found)
    assert len({sizes.get(id, 16) for id in ("w1", "w2", "w4")}) == 1
    assert found.after.params <= share / 100 * found.before.params


def test_equal_by_the_module_that_makes_the_group(graph, scores) -> None:
    skewed = {**scores, "w1": scores["w1"] * 0 + 1, "w2": scores["w2"] * 0.01}
    found = plan(graph, skewed, keep=0.6, normalise="none", selector="global", equal=["l[03]"])
    sizes = kept(found)
    assert sizes.get("w1", 16) == sizes.get("w4", 16) != sizes["w2"]


def test_all_rules_at_once(graph, scores) -> None:
    options = {"keep_modules": ["l0"], "equal": ["w[24]"], "multiple_of": 2, "min_units": 4}
    found = plan(graph, scores, budget="params=45%,macs=40%", selector="global", **options)
    sizes = kept(found)
    assert "w1" not in sizes and sizes["w2"] == sizes["w4"]
    assert all(count >= 4 and count % 2 == 0 for count in sizes.values())
    assert found.after.macs <= 0.4 * found.before.macs


def test_the_models_own_arithmetic_holds(graph, scores) -> None:
    # the code computes w3 // w2 == 3
    axes = {group.id: group.axis for group in graph.groups}
    ratio = Binary("floordiv", Size((axes["w3"],)), Size((axes["w2"],)))
    exact = Binary("mod", Size((axes["w3"],)), Size((axes["w2"],)))
    graph = replace(
        graph,
        relations=(*graph.relations, Relation("eq", ratio, 3), Relation("eq", exact, 0)),
    )
    for share in (20, 40, 60, 80):
        found = plan(graph, scores, budget=f"params={share}%", selector="global")
        sizes = kept(found)
        assert sizes.get("w3", 48) == 3 * sizes.get("w2", 16)
        assert found.after.params <= share / 100 * found.before.params
        fields = {str(c.field): c.after for c in found.changes}
        assert fields["l3.in_features"] == sizes["w3"]
    assert Field("l3", "in_features") in graph.fields


@pytest.fixture
def tied(make_chain):
    """w1 == 4 * f and w2 == 6 * f for a field f of the model: they move in leaps of 4 and 6."""
    graph = make_chain([3, 16, 24, 400, 5])
    axes = {group.id: group.axis for group in graph.groups}
    f = Field("attention", "heads")
    relations = (
        Relation("eq", Binary("mul", f, 4), Size((axes["w1"],))),
        Relation("eq", Binary("mul", f, 6), Size((axes["w2"],))),
    )
    return replace(graph, relations=(*graph.relations, *relations), fields={**graph.fields, f: 4})


# "knapsack" leaves a gap where filling it would cost more of what the units are worth
@pytest.mark.parametrize("selector", ["uniform", "global"])
@pytest.mark.parametrize("share", [25, 50, 62, 90])
def test_leaps_of_tied_groups_leave_no_gap(tied, make_scores, selector, share) -> None:
    found = plan(tied, make_scores(tied), budget=f"params={share}%", selector=selector)
    sizes = {"w1": 16, "w2": 24, "w3": 400} | kept(found)
    assert sizes["w1"] * 6 == sizes["w2"] * 4
    heads = [c.after for c in found.changes if c.field.name == "heads"]
    assert heads == ([sizes["w1"] // 4] if sizes["w1"] < 16 else [])
    # one unit of the free group w3 costs its row of w2 inputs and 5 outputs
    left = share / 100 * found.before.params - found.after.params
    assert 0 <= left < max(sizes["w2"] + 5, 1e-3 * found.before.params)


def test_counts_asked_alone_are_those_of_the_whole_solution(tied, make_scores) -> None:
    problem = make_problem(tied, make_scores(tied), None, Constraints(keep=0.5, min_units=3))
    assert problem.tied == (frozenset({1, 2}),)
    for level in (0.1, 0.3, 0.5, 0.9):
        wanted = problem.wanted(level)
        solution = problem.solve(wanted)
        assert problem.possible(wanted) == {**problem.whole, **solution.counts}


def test_rules_that_the_arithmetic_excludes(tied, make_scores) -> None:
    # multiples of 16 leave w1 whole, so w2 cannot move either; w3 still can
    found = plan(tied, make_scores(tied), budget="params=60%", multiple_of=16)
    assert set(kept(found)) == {"w3"}
    assert any(note.startswith("w1: left whole") for note in found.notes)
    assert any(note.startswith("w2: asked") for note in found.notes)


def test_shares_of_single_groups(graph, scores) -> None:
    assert kept(plan(graph, scores, keep={"w1": 0.3, "w3": 0.51})) == {"w1": 5, "w3": 25}
    # an id before every pattern, the last pattern before the others
    found = plan(graph, scores, keep={"w2": 0.9, "w*": 0.5, "l3": 0.25, "w3": 0.1})
    assert kept(found) == {"w1": 8, "w2": 15, "w3": 5, "w4": 4}
    assert not found.notes


def test_shares_follow_the_rounding_and_the_rules(graph, scores) -> None:
    shares = {"w1": 0.01, "w2": 0.7, "w3": 0.37}
    for selector in SELECTORS:
        found = plan(graph, scores, keep=shares, min_units=2, selector=selector)
        assert kept(found) == {"w1": 2, "w2": 12, "w3": 18}
        found = plan(graph, scores, keep=shares, multiple_of=8, selector=selector)
        assert kept(found) == {"w1": 8, "w3": 24}
    found = plan(graph, scores, keep=shares, equal=["w[12]"])
    assert kept(found) == {"w1": 12, "w2": 12, "w3": 18}
    found = plan(graph, scores, keep=shares, groups=["w1", "w4"])
    assert kept(found) == {"w1": 1}


@pytest.mark.parametrize("selector", SELECTORS)
def test_shares_limit_a_budget(graph, scores, selector) -> None:
    shares = {"w2": 0.5, "w3": 0.25}
    found = plan(graph, scores, budget="params=60%", keep=shares, selector=selector)
    sizes = kept(found)
    assert set(sizes) <= {"w2", "w3"} and sizes.get("w2", 16) >= 8 and sizes["w3"] >= 12
    assert found.after.params <= 0.6 * found.before.params
    with pytest.raises(BudgetError, match=r"with keep=\{'w2': 0\.5, 'w3': 0\.25\} the least"):
        plan(graph, scores, budget="params=20%", keep=shares, selector=selector)


def test_shares_are_recorded_in_their_order(graph, scores) -> None:
    found = plan(graph, scores, keep={"w*": 0.5, "w1": 0.25})
    assert found.settings["keep"] == [["w*", 0.5], ["w1", 0.25]]
    assert Plan.from_json(found.to_json()) == found


def test_shares_reach_a_structural_group_by_its_id_only(graph, scores) -> None:
    groups = tuple(replace(g, structural=g.id == "w2") for g in graph.groups)
    graph = replace(graph, groups=groups)
    assert "w2" not in kept(plan(graph, scores, keep={"w*": 0.5}))
    assert kept(plan(graph, scores, keep={"w2": 0.5})) == {"w2": 8}
    found = plan(graph, scores, keep={"w0": 0.5, "w1": 0.5})
    assert found.notes == ("w0: not cut although asked for, the model's input",)


def test_shares_that_make_no_sense(graph, scores) -> None:
    with pytest.raises(ValueError, match="keep: 'w77' matches nothing"):
        plan(graph, scores, keep={"w77": 0.5})
    with pytest.raises(ValueError, match=r"keep\['w1'\]=1\.5: the share"):
        plan(graph, scores, keep={"w1": 1.5})
    with pytest.raises(ValueError, match="say the same thing twice"):
        plan(graph, scores, keep={"w1": 0.5}, sparsity=0.5)


def test_brackets_of_an_id_may_stand_in_a_pattern(graph, scores) -> None:
    names = {"w1": "l0.weight[0]", "w2": "l1.weight[0]", "w3": "l2.weight[0].1"}
    groups = tuple(replace(g, id=names.get(g.id, g.id)) for g in graph.groups)
    graph = replace(graph, groups=groups)
    scores = {names.get(id, id): values for id, values in scores.items()}
    for pattern in ("l0.weight[0]", "l[0].weight*"):
        assert set(kept(plan(graph, scores, keep=0.5, groups=[pattern]))) == {"l0.weight[0]"}
    found = plan(graph, scores, keep={"l*.weight[0]": 0.5, "l*[0].1": 0.25})
    assert kept(found) == {"l0.weight[0]": 8, "l1.weight[0]": 8, "l2.weight[0].1": 12}
