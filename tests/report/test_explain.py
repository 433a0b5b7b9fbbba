"""The explanation: widths from axes, members written short without loss, histograms that add up."""

from __future__ import annotations

import json
import re
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.graph import Member
from secateur.report.explain import BINS, Explanation, Width, _histogram
from secateur.report.members import compact_members
from secateur.report.result import Result


def expand(line: str) -> set[Member]:
    """Every member that a line of braces stands for, derived on its own."""
    name, dim = re.fullmatch(r"(.*) \[(\d+)\]", line).groups()  # type: ignore[union-attr]
    choices = []
    for piece in re.split(r"(\{[^}]*\})", name):
        if not piece.startswith("{"):
            choices.append([piece])
            continue
        options = []
        for part in re.split(r", ?", piece[1:-1]):
            span = re.fullmatch(r"(\d+)-(\d+)", part)
            numbers = range(int(span[1]), int(span[2]) + 1) if span else [part]
            options += [str(number) for number in numbers]
        choices.append(options)
    return {Member("".join(pieces), int(dim)) for pieces in product(*choices)}


names = st.lists(st.sampled_from(["layers", "0", "1", "2", "11", "01", "fc1", "w"]), min_size=1)
members = st.builds(Member, names.map(".".join), st.integers(0, 2))


@given(st.lists(members, max_size=30))
def test_short_members_are_exactly_the_members(given_members: list[Member]) -> None:
    lines = compact_members(given_members)
    assert set().union(*map(expand, lines)) == set(given_members)
    assert len(lines) <= len(set(given_members))


def test_thirty_layers_are_one_line() -> None:
    lines = compact_members(
        Member(f"model.layers.{i}.mlp.{name}.weight", 0)
        for i in range(30)
        for name in ("up", "gate")
    )
    assert lines == (
        "model.layers.{0-29}.mlp.up.weight [0]",
        "model.layers.{0-29}.mlp.gate.weight [0]",
    )


def test_widths_and_groups_of_a_real_plan(result: Result) -> None:
    told = result.explanation
    assert told.widths == (
        Width("fc1", "Linear", 256, 72),
        Width("fc2", "Linear", 128, 48),
        Width("head", "Linear", 10, 10),
    )
    assert [(g.id, g.size, g.kept, g.member_count) for g in told.groups] == [
        ("fc1.weight:1", 64, 64, 1),
        ("fc1", 256, 72, 3),
        ("fc2", 128, 48, 5),
        ("head", 10, 10, 2),
    ]
    assert Explanation.from_json(json.loads(json.dumps(told.to_json()))) == told


def test_histograms_add_up(result: Result) -> None:
    for each, (kept, removed) in zip(result.explanation.scores, [(72, 184), (48, 80)], strict=True):
        assert len(each.kept) == len(each.removed) == BINS
        assert (sum(each.kept), sum(each.removed)) == (kept, removed)


@pytest.mark.parametrize(
    ("scores", "log", "low", "high"),
    [
        ([1.0, 2.0, 3.0], False, 1.0, 3.0),
        ([0.0, 1e-4, 1.0], True, -4.0, 0.0),
        ([-1.0, 1e-4, 1.0], False, -1.0, 1.0),
        ([2.0, 2.0, 2.0], False, 2.0, 2.0),
        ([0.0, 0.0, 0.0], False, 0.0, 0.0),
    ],
)
def test_axis_of_a_histogram(scores: list[float], log: bool, low: float, high: float) -> None:
    drawn = _histogram("g", torch.tensor(scores, dtype=torch.float64), (2,))
    assert (drawn.log, drawn.low, drawn.high) == (log, pytest.approx(low), pytest.approx(high))
    assert (sum(drawn.kept), sum(drawn.removed)) == (1, 2)
