"""Unification, by hand: what becomes of each dimension when two are declared equal."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.graph.types import (
    Atom,
    SizeMismatch,
    concat,
    flag,
    fresh,
    leading,
    leaves,
    pin,
    resolve,
    show,
    size_of,
    split,
    split_sizes,
    unify,
)


def test_a_fused_projection_factors() -> None:
    qkv, three, heads, width = fresh(24), fresh(3), fresh(2), fresh(4)
    unify(qkv, three + heads + width, "view")
    assert resolve(qkv) == three + heads + width


def test_grouped_heads_refine_an_earlier_factoring() -> None:
    heads = fresh(6)
    kv, repeat = fresh(2), fresh(3)
    unify(heads, kv + repeat, "expand")
    assert resolve(heads) == kv + repeat


def test_a_shuffle_of_two_halves_makes_them_one_axis() -> None:
    # [a | b] seen as 2 x c: both halves are c
    a, b, two, c = fresh(5), fresh(5), fresh(2), fresh(5)
    unify(concat([a, b]), two + c, "view")
    assert resolve(a) == resolve(b) == resolve(c)


def test_an_offset_inside_a_factor_splits_exactly() -> None:
    product = fresh(3) + fresh(4)
    left, right = split(product, 6)  # 1 x 4 + 2 | 2 + 1 x 4
    assert left is not None and right is not None
    assert (size_of(left), size_of(right)) == (6, 6)
    assert show(product) == "[1|1|1]x[2|2]"


def test_sizes_without_common_factor_pin_both() -> None:
    first, second = fresh(4) + fresh(3), fresh(3) + fresh(4)
    unify(first, second, "view")
    assert all("no common factoring" in (atom.pin or "") for atom in leaves(first + second))


def test_unequal_sizes_are_an_error() -> None:
    with pytest.raises(SizeMismatch, match="4 against 5 in add"):
        unify(fresh(4), fresh(5), "add")


def test_pins_and_flags_reach_what_an_atom_is_bound_to_later() -> None:
    whole, outer, inner = fresh(6), fresh(2), fresh(3)
    pin(whole, "an output of the model")
    flag(whole, "renormalised", "mean over it")
    unify(whole, outer + inner, "view")
    for atom in outer + inner:
        assert atom.pin == "an output of the model"
        assert atom.flags == {"renormalised": "mean over it"}


def test_a_concatenation_meets_another_with_other_boundaries() -> None:
    a, b, c, d = fresh(2), fresh(4), fresh(3), fresh(3)
    unify(concat([a, b]), concat([c, d]), "add")
    assert show(c) == "[2|1]" and show(b) == "[1|3]"


def test_leading_factors() -> None:
    product = fresh(4) + fresh(6)
    assert leading(product, 4) == product[:1]
    assert leading(product, 1) == ()
    assert leading(product, 3) is None


@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.data())
def test_pieces_of_a_split_add_up_and_are_disjoint(sizes: list[int], data: st.DataObject) -> None:
    product = tuple(atom for size in sizes for atom in fresh(size))
    total = size_of(product)
    cuts = sorted(data.draw(st.lists(st.integers(0, total), max_size=3)))
    bounds = [0, *cuts, total]
    wanted = [b - a for a, b in pairwise(bounds)]
    pieces = split_sizes(product, wanted)
    assert [size_of(piece) for piece in pieces] == wanted
    assert size_of(resolve(product)) == total


@given(st.permutations([2, 3, 4]), st.permutations([2, 3, 4]))
def test_unification_keeps_sizes_or_pins(first: list[int], second: list[int]) -> None:
    left = tuple(Atom(size) for size in first)
    right = tuple(Atom(size) for size in second)
    unify(left, right, "view")
    assert size_of(resolve(left)) == size_of(resolve(right)) == 24
    equal = resolve(left) == resolve(right)
    assert equal or any(atom.pin for atom in leaves(left))
