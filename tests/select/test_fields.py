"""New values of attributes: definitions, inversion, the least change, and contradictions."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.core.dims import Axis
from secateur.core.errors import CutError
from secateur.core.expressions import Binary, Expression, Field, Relation, Size
from secateur.select.fields import solve_fields

A, B = Axis(0, 12), Axis(1, 4)
F, G, H = Field("layer", "f"), Field("layer", "g"), Field("", "config.h", 1)


def equal(left: Expression, right: Expression, where: str = "") -> Relation:
    return Relation("eq", left, right, True, where)


def op(name: str, left: Expression, right: Expression) -> Binary:
    return Binary(name, left, right)


def test_a_definition_and_a_field_without_any() -> None:
    assert solve_fields([equal(F, Size((A,)))], {F: 12, G: 7}, {0: 5}) == {F: 5, G: 7}
    assert solve_fields([equal(Size((A, B)), H)], {H: 48}, {0: 5}) == {H: 20}


@pytest.mark.parametrize(
    ("expression", "old", "expected"),
    [
        (op("mul", 2, F), 6, 3),
        (op("mul", F, G), 3, 2),
        (op("add", F, 2), 10, 4),
        (op("sub", F, 2), 14, 8),
        (op("sub", 20, F), 8, 14),
        (op("floordiv", F, 3), 36, 18),
        (op("floordiv", 24, F), 2, 4),
        (op("floordiv", op("mul", F, 2), G), 24, 9),
        (op("add", F, F), 6, 3),
    ],
)
def test_the_single_unknown_of_an_equation(expression: Binary, old: int, expected: int) -> None:
    # the axis goes from 12 units to 6; g is 4 before and 3 after
    relations = [equal(expression, Size((A,))), equal(G, Size((B,)))]
    assert solve_fields(relations, {F: old, G: 4}, {0: 6, 1: 3}) == {F: expected, G: 3}


def test_unknowns_are_solved_in_any_order() -> None:
    relations = [
        equal(op("mul", F, G), Size((A,))),
        equal(op("mul", G, H), Size((A,))),
        equal(H, Size((B,))),
    ]
    # h = 3, so g = 9 / 3 and f = 9 / 3
    assert solve_fields(relations, {F: 4, G: 3, H: 4}, {0: 9, 1: 3}) == {F: 3, G: 3, H: 3}


def test_two_unknowns_keep_their_values_where_they_can() -> None:
    relations = [equal(op("mod", op("add", F, G), 4), 0)]
    assert solve_fields(relations, {F: 5, G: 7}, {}) == {F: 5, G: 7}


def test_two_unknowns_change_as_little_as_possible() -> None:
    product = [equal(op("mul", F, G), Size((A,)))]
    # 2 * 4 is one step from (3, 4); 1 * 8 and 8 * 1 are further, 4 * 2 is two
    assert solve_fields(product, {F: 3, G: 4}, {0: 8}) == {F: 2, G: 4}
    total = [equal(op("add", F, G), Size((A,)))]
    assert solve_fields(total, {F: 2, G: 10}, {0: 9}) == {F: 2, G: 7}


def test_a_quotient_with_a_remainder() -> None:
    small = Axis(2, 3)  # 14 // 4 == 3: at 2 the field may be 8 to 11
    relations = [equal(op("floordiv", F, 4), Size((small,)))]
    assert solve_fields(relations, {F: 14}, {2: 2}) == {F: 11}


def test_contradicting_definitions_name_both() -> None:
    relations = [equal(F, Size((A,)), "a.py:1"), equal(F, Size((B,)), "b.py:2")]
    with pytest.raises(CutError, match=r"layer\.f would have to be 5 .*a\.py:1.* and 4 .*b\.py:2"):
        solve_fields(relations, {F: 12}, {0: 5})


def test_a_relation_that_flips_is_named() -> None:
    relations = [equal(F, Size((A,))), Relation("ne", F, 1, True, "conv.py:9")]
    with pytest.raises(CutError, match=r"conv\.py:9.*no longer True: 1 against 1"):
        solve_fields(relations, {F: 12}, {0: 1})
    with pytest.raises(CutError, match=r"split\.py:3"):
        solve_fields([equal(op("mul", 2, F), Size((A,)), "split.py:3")], {F: 6}, {0: 5})


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 16), st.sampled_from(["mul", "add"]))
def test_the_least_change_is_that_of_brute_force(f: int, g: int, size: int, name: str) -> None:
    whole = Axis(0, f * g if name == "mul" else f + g)
    size = min(size, whole.size)
    if name == "add" and size < 2:
        return
    solved = solve_fields([equal(op(name, F, G), Size((whole,)))], {F: f, G: g}, {0: size})

    def change(first: int, second: int) -> float:
        return abs(first - f) / f + abs(second - g) / g

    best = min(
        change(x, y)
        for x, y in itertools.product(range(1, 17), repeat=2)
        if (x * y if name == "mul" else x + y) == size
    )
    assert change(solved[F], solved[G]) == pytest.approx(best, abs=1e-6)
