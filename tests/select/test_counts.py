"""The count solver on systems that can be checked by hand."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from systems import equal, make_graph, op

from secateur.core.dims import Axis, Concat
from secateur.core.errors import BudgetError
from secateur.core.expressions import (
    Field,
    Relation,
    Size,
)
from secateur.core.graph import Graph
from secateur.select import _counts_search
from secateur.select.counts import Solution, solve_counts

HEADS, DIM, WIDTH = Axis(0, 3), Axis(1, 4), Axis(2, 12)
EMBED, N_HEADS = Field("attn", "embed_dim"), Field("attn", "num_heads")
ATTENTION = (
    equal(EMBED, Size((WIDTH,))),
    equal(N_HEADS, Size((HEADS,))),
    equal(op("floordiv", EMBED, N_HEADS), Size((DIM,)), "attn.py:7"),
    equal(Size((WIDTH,)), op("mul", Size((HEADS,)), Size((DIM,))), "attn.py:9"),
)


def attention() -> Graph:
    return make_graph((HEADS, DIM, WIDTH), ATTENTION, {EMBED: 12, N_HEADS: 3})


def test_attention_finds_the_nearest_product() -> None:
    solution = solve_counts(attention(), {0: 2, 1: 2, 2: 6})
    # 2 * 3 == 6 costs one of four; 2 * 2 == 4 would cost two of twelve, which is less
    assert solution.counts == {0: 2, 1: 2, 2: 4}
    assert solution.fields == {EMBED: 4, N_HEADS: 2}
    assert set(solution.notes) == {2}
    assert "g2: asked 6 of 12 units, keeps 4" in solution.notes[2]
    assert "attn.py" in solution.notes[2] and "attn.embed_dim" in solution.notes[2]


def test_an_axis_that_is_absent_or_pinned_keeps_all() -> None:
    assert solve_counts(attention(), {0: 2, 1: 2}).counts == {}
    graph = make_graph((HEADS, DIM, WIDTH), ATTENTION, attention().fields, pinned=[WIDTH])
    solution = solve_counts(graph, {0: 1, 1: 4, 2: 4})
    assert solution.counts == {}
    assert solution.notes[2] == "g2: asked 4 of 12 units, keeps all: model output"


def test_a_heavy_axis_moves_last() -> None:
    wanted = {0: 2, 1: 2, 2: 6}
    solution = solve_counts(attention(), wanted, weights={2: 4.0})
    assert solution.counts == {0: 2, 1: 3, 2: 6}  # a quarter of g1, not four times a sixth of g2


def test_grouped_queries() -> None:
    kv, rep, head_dim = Axis(0, 4), Axis(1, 2), Axis(2, 8)
    heads, groups = Field("", "config.heads"), Field("attn", "groups")
    kv_heads = Field("", "config.kv_heads")
    relations = (
        equal(heads, Size((kv, rep))),
        equal(kv_heads, Size((kv,))),
        equal(groups, op("floordiv", heads, kv_heads)),
        equal(groups, Size((rep,))),
    )
    graph = make_graph((kv, rep, head_dim), relations, {heads: 8, kv_heads: 4, groups: 2})
    solution = solve_counts(graph, {0: 3, 2: 5})
    assert solution.counts == {0: 3, 2: 5} and not solution.notes
    assert solution.fields == {heads: 6, kv_heads: 3, groups: 2}


def test_layers_that_share_an_attribute_stay_equal() -> None:
    layers = [Axis(i, 10) for i in range(5)]
    width = Field("config", "intermediate_size")
    graph = make_graph(layers, [equal(width, Size((a,))) for a in layers], {width: 10})
    solution = solve_counts(graph, {0: 5, 1: 5, 2: 7, 3: 9, 4: 10})
    assert solution.counts == dict.fromkeys(range(5), 7)  # the median
    assert solution.fields == {width: 7}
    assert "config.intermediate_size" in solution.notes[4]


def test_a_proportion_keeps_its_ratio() -> None:
    a, b = Axis(0, 12), Axis(1, 8)
    graph = make_graph((a, b), [equal(op("mul", 2, Size((a,))), op("mul", 3, Size((b,))))])
    assert solve_counts(graph, {0: 7, 1: 4}).counts == {0: 6, 1: 4}


def test_chunks_of_a_concatenation() -> None:
    a, b, half = Axis(0, 6), Axis(1, 6), Axis(2, 6)
    whole = Size((Concat(((a,), (b,))),))
    relations = [equal(op("floordiv", whole, 2), Size((half,))), equal(Size((a,)), Size((half,)))]
    solution = solve_counts(make_graph((a, b, half), relations), {0: 3, 1: 3, 2: 4})
    assert solution.counts == {0: 3, 1: 3, 2: 3}


def test_predicates_do_not_flip() -> None:
    groups, wide = Axis(0, 4), Axis(1, 200)
    n_groups, width = Field("conv", "groups"), Field("conv", "width")
    relations = (
        equal(n_groups, Size((groups,))),
        Relation("eq", n_groups, 1, False, "conv.py:3"),
        equal(width, Size((wide,))),
        Relation("lt", width, 128, False, "conv.py:4"),
    )
    graph = make_graph((groups, wide), relations, {n_groups: 4, width: 200})
    solution = solve_counts(graph, {0: 1, 1: 100})
    assert solution.counts == {0: 2, 1: 128}
    assert "not (conv.groups == 1) (conv.py:3)" in solution.notes[0]
    assert "conv.py:4" in solution.notes[1]


def test_a_field_that_nothing_defines_keeps_its_value() -> None:
    wide, longest = Axis(0, 10), Field("", "longest")
    graph = make_graph((wide,), [Relation("gt", longest, Size((wide,)), False)], {longest: 6})
    solution = solve_counts(graph, {0: 3})
    assert solution.counts == {0: 6} and solution.fields == {longest: 6}


def test_ties_remove_fewer_units() -> None:
    a, b = Axis(0, 8), Axis(1, 8)
    graph = make_graph((a, b), [equal(Size((a,)), Size((b,)))])
    assert solve_counts(graph, {0: 4, 1: 6}).counts == {0: 6, 1: 6}


def test_allowed_counts_and_alignment() -> None:
    solution = solve_counts(attention(), {0: 2, 1: 2, 2: 6}, allowed={1: [4], 2: range(4, 13, 4)})
    assert solution.counts == {0: 1, 2: 4} or solution.counts == {0: 2, 2: 8}
    assert solution.counts == {0: 2, 2: 8}  # the tie goes to fewer units removed
    assert "allowed" in solution.notes[1]


def test_an_allowed_set_that_excludes_everything_is_a_clear_error() -> None:
    with pytest.raises(BudgetError, match=r"attn\.py:7.*g2 keeps one of 7, 11 of 12") as caught:
        solve_counts(attention(), {0: 3, 1: 3, 2: 12}, allowed={1: [3, 4], 2: [7, 11]})
    assert "g1 keeps" not in str(caught.value)  # that restriction takes no part in it
    with pytest.raises(BudgetError, match="group g1: none of the allowed counts"):
        solve_counts(attention(), {1: 2}, allowed={1: [16]})


def test_an_extra_relation_that_cannot_hold_is_named() -> None:
    extra = equal(op("mod", Size((WIDTH,)), 16), 0, "constraint multiple=16")
    with pytest.raises(BudgetError, match="multiple=16"):
        solve_counts(attention(), {2: 6}, relations=(extra,))


def test_an_unknown_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="axis 7"):
        solve_counts(attention(), {7: 1})


def test_a_bounded_search_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = Axis(0, 40), Axis(1, 40), Axis(2, 80)
    graph = make_graph((a, b, c), [equal(Size((Concat(((a,), (b,))),)), Size((c,)))])
    wanted = {0: 12, 1: 30, 2: 39}
    free = solve_counts(graph, wanted)
    monkeypatch.setattr(_counts_search, "UNBOUNDED", 50)
    assert solve_counts(graph, wanted).counts == free.counts


def test_products_too_large_to_list() -> None:
    axes = [Axis(i, 80) for i in range(8)]
    graph = make_graph(axes, [equal(Size(tuple(axes[:4])), Size(tuple(axes[4:])))])
    wanted = dict.fromkeys(range(8), 40)
    assert solve_counts(graph, wanted).counts == wanted
    # one factor is off by half: the nearest equal products move one factor back
    solution = solve_counts(graph, {**wanted, 0: 20})
    left, right = ([solution.counts.get(i, 80) for i in side] for side in (range(4), range(4, 8)))
    assert left[0] * left[1] * left[2] * left[3] == right[0] * right[1] * right[2] * right[3]
    assert distance_of(solution, {**wanted, 0: 20}) <= 20 / 80


def distance_of(solution: Solution, wanted: Mapping[int, int]) -> float:
    return sum(abs(solution.counts.get(a, 80) - n) / 80 for a, n in wanted.items())
