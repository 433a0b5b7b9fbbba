"""Budgets: met or an error, never overshot, as close as one unit, monotone in what is allowed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.core.budget import Budget
from secateur.core.errors import BudgetError
from secateur.core.lookup import names
from secateur.cost.counted import cost
from secateur.select.plan import plan

SELECTORS = names("secateur.select")
widths = st.lists(st.integers(2, 24), min_size=3, max_size=6)
percent = st.integers(1, 100)
metric = st.sampled_from(["params", "macs", "size", "memory"])


@settings(max_examples=40)
@given(widths, percent, metric, st.sampled_from(SELECTORS), st.integers(0, 3))
def test_budget_is_met_or_an_error(make_chain, make_scores, widths, share, metric, selector, seed):
    graph = make_chain(widths)
    budget = Budget.parse(f"{metric}={share}%")
    try:
        found = plan(graph, make_scores(graph, seed), budget=budget, selector=selector)
    except BudgetError as error:
        smallest = cost(graph, dict.fromkeys(range(1, len(widths) - 1), 1))
        assert not budget.met(smallest, cost(graph)), error
        return
    assert budget.met(found.after, found.before)
    assert found.after == cost(graph, found.counts())


@settings(max_examples=40)
@given(widths, percent, percent, metric, st.sampled_from(SELECTORS), st.integers(0, 3))
def test_more_budget_never_gives_a_smaller_model(
    make_chain, make_scores, widths, one, other, metric, selector, seed
):
    graph = make_chain(widths)
    scores = make_scores(graph, seed)
    budgets = [Budget.parse(f"{metric}={share}%") for share in sorted((one, other))]
    costs = []
    for budget in budgets:
        try:
            found = plan(graph, scores, budget=budget, selector=selector)
        except BudgetError:
            costs.append(0.0)
        else:
            costs.append(budget.limits[0].value(found.after))
    assert costs[0] <= costs[1]


@pytest.mark.parametrize("selector", SELECTORS)
@pytest.mark.parametrize("share", [15, 30, 50, 70, 95])
def test_not_one_unit_more_would_fit(make_chain, make_scores, selector, share) -> None:
    graph = make_chain([3, 16, 16, 48, 16, 5])
    found = plan(graph, make_scores(graph), budget=f"params={share}%", selector=selector)
    counts = found.counts()
    for group in graph.free:
        more = {**counts, group.axis.index: counts.get(group.axis.index, group.size) + 1}
        if more[group.axis.index] <= group.size:
            assert cost(graph, more).params > share / 100 * found.before.params, group.id


def test_several_limits_all_hold(make_chain, make_scores) -> None:
    graph = make_chain([3, 16, 16, 48, 16, 5])
    found = plan(graph, make_scores(graph), budget="macs=60%,params=700,memory=90%")
    assert found.after.params <= 700
    assert found.after.macs <= 0.6 * found.before.macs
    assert found.after.peak_memory_bytes <= 0.9 * found.before.peak_memory_bytes
    assert found.after.params > 600  # the binding limit is used


def test_uniform_keeps_equal_groups_nearly_equal(make_chain, make_scores) -> None:
    graph = make_chain([3, 64, 64, 64, 5])
    found = plan(graph, make_scores(graph), budget="params=50%", selector="uniform")
    kept = [len(units) for units in found.keep.values()]
    assert max(kept) - min(kept) <= math.ceil(0.02 * 64)


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"min_units": 5}, r"min_units=5"),
        ({"keep": 0.8}, r"keep=0\.8"),
        ({"sparsity": 0.2}, r"sparsity=0\.2"),
        ({"threshold": 0.2}, r"threshold=0\.2"),
        ({"multiple_of": 8}, r"multiple_of=8"),
        ({"keep_modules": ["l1"]}, r"keep_modules=\('l1',\)"),
        ({"groups": ["w1"]}, r"groups=\('w1',\)"),
    ],
)
def test_conflict_names_both_rules_and_what_can_be_met(
    make_chain, make_scores, options, rule
) -> None:
    graph = make_chain([3, 10, 20, 40, 5])
    scores = make_scores(graph)
    with pytest.raises(BudgetError, match=rf"^params=2% cannot be met: with {rule} the least") as e:
        plan(graph, scores, budget="params=2%", **options)
    nearest = str(e.value).split("remain is ")[1].split(";")[0]
    found = plan(graph, scores, budget=nearest, **options)
    assert Budget.parse(nearest).met(found.after, found.before)


def test_conflict_of_several_rules_together(make_chain, make_scores) -> None:
    graph = make_chain([3, 10, 20, 40, 5])
    with pytest.raises(BudgetError, match=r"with keep=0\.1 and min_units=2 together"):
        plan(graph, make_scores(graph), budget="params=20", keep=0.1, min_units=2)


def test_impossible_without_any_rule(make_chain, make_scores) -> None:
    graph = make_chain([3, 10, 5])
    with pytest.raises(BudgetError, match=r"one unit left.*params=10%.*2 of 3 groups are pinned"):
        plan(graph, make_scores(graph), budget="params=1%")


def test_measured_budget_says_what_can_be_counted(make_chain, make_scores) -> None:
    graph = make_chain([3, 10, 5])
    with pytest.raises(BudgetError, match=r"latency=50%.*measured.*params, macs, size and memory"):
        plan(graph, make_scores(graph), budget="macs=50%,latency=50%")
