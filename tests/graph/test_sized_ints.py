"""Integers that remember: ordinary ints to the model, expressions to the trace."""

from __future__ import annotations

import copy
import math
import pickle

import pytest

from secateur.core.expressions import Binary, Field
from secateur.graph.sized_ints import Ledger, LiveSize, SizedInt
from secateur.graph.types import fresh

WIDTH, HEADS = Field("attn", "width"), Field("attn", "heads")


def test_arithmetic_builds_expressions() -> None:
    ledger = Ledger()
    width, heads = ledger.tag(64, WIDTH), ledger.tag(4, HEADS)
    each = width // heads
    assert isinstance(each, SizedInt) and int(each) == 16
    assert each.expression == Binary("floordiv", WIDTH, HEADS)
    assert (3 * width).expression == Binary("mul", 3, WIDTH)  # type: ignore[attr-defined]
    assert (heads**2).expression.op == "mul"  # type: ignore[union-attr]
    assert math.prod([width, heads]).expression.op == "mul"  # type: ignore[attr-defined]


def test_comparisons_are_noted_with_their_line() -> None:
    ledger = Ledger()
    width = ledger.tag(64, WIDTH)
    assert width > 5
    assert width != 63
    assert [(n.op, n.right, n.holds) for n in ledger.notes] == [("gt", 5, True), ("ne", 63, True)]
    assert all("test_sized_ints.py:" in note.where for note in ledger.notes)


def test_a_float_made_of_a_size_is_a_scale() -> None:
    ledger = Ledger()
    assert ledger.tag(64, WIDTH) ** -0.5 == 0.125
    assert math.sqrt(ledger.tag(64, HEADS)) == 8.0
    assert [conversion.expression for conversion in ledger.conversions] == [WIDTH, HEADS]


def test_an_arrival_is_an_equation_or_a_literal() -> None:
    ledger, product = Ledger(), fresh(64)
    ledger.arrive(ledger.tag(64, WIDTH), product, "view")
    ledger.arrive(64, product, "view")
    (note,) = ledger.notes
    assert note.left == WIDTH and isinstance(note.right, LiveSize)
    assert ledger.literals == [(product, "view")]


def test_a_closed_ledger_has_plain_integers() -> None:
    ledger = Ledger()
    width = ledger.tag(64, WIDTH)
    ledger.open = False
    assert type(width // 2) is int
    assert width == 64 and width > 5
    assert ledger.notes == []


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))]
)
def test_copies_are_plain(copied: object) -> None:
    assert type(copied(Ledger().tag(64, WIDTH))) is int  # type: ignore[operator]


def test_sizes_of_one_carry_nothing() -> None:
    assert type(Ledger().tag(1, WIDTH)) is int
