"""The front, the line it is compared with, and the volume, beside naive derivations."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.search.pareto import Goal, beaten, beats, dominates, front, hypervolume

TWO = (Goal("accuracy", maximise=True), Goal("latency"))
THREE = (Goal("a"), Goal("b", maximise=True), Goal("c"))

few = st.integers(0, 4).map(float)  # few values, so that ties are common


def points_of(goals: int) -> st.SearchStrategy[list[tuple[float, ...]]]:
    return st.lists(st.tuples(*[few] * goals), max_size=12)


@given(points_of(3))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, ...]]) -> None:
    alone = {
        k
        for k, point in enumerate(points)
        if not any(beats(other, point, THREE) for other in points)
    }
    found = front(points, THREE)
    assert set(found) == alone
    assert len(found) == len(alone)


@given(points_of(3))
def test_whatever_is_not_in_the_front_is_beaten_by_it(points: list[tuple[float, ...]]) -> None:
    found = front(points, THREE)
    rest = [points[k] for k in range(len(points)) if k not in found]
    assert dominates([points[k] for k in found], rest, THREE) == bool(rest)


def test_equal_points_all_stand_in_the_front_and_the_best_metric_comes_first() -> None:
    points = [(0.8, 2.0), (0.9, 5.0), (0.8, 2.0), (0.8, 3.0), (0.7, 1.0)]
    assert front(points, TWO) == (1, 0, 2, 4)
    assert front([], TWO) == ()


def test_one_goal_is_enough() -> None:
    assert front([(3.0,), (1.0,), (1.0,), (2.0,)], (Goal("a"),)) == (1, 2)


def test_a_line_is_dominated_only_if_every_point_of_it_is() -> None:
    line = [(0.90, 4.0), (0.85, 2.0)]
    assert dominates([(0.91, 4.0), (0.86, 1.5)], line, TWO)
    assert not dominates([(0.91, 4.0)], line, TWO)
    assert beaten(line, by=[(0.91, 4.0)], goals=TWO) == (0,)
    assert not dominates(line, line, TWO)  # what is equalled is not beaten
    assert not dominates(line, [], TWO)


def test_a_point_without_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="accuracy, latency"):
        front([(0.9, math.nan)], TWO)
    with pytest.raises(ValueError, match="one number for each"):
        front([(0.9,)], TWO)


def test_the_volume_of_boxes_counted_by_hand() -> None:
    # accuracy above 0.5 and latency below 10: boxes 0.4 x 5 and 0.3 x 8, shared 0.3 x 5
    assert hypervolume([(0.9, 5.0), (0.8, 2.0)], (0.5, 10.0), TWO) == pytest.approx(2.9)
    assert hypervolume([], (0.5, 10.0), TWO) == 0.0
    assert hypervolume([(0.4, 1.0), (0.9, 10.0)], (0.5, 10.0), TWO) == 0.0


@given(points_of(3))
def test_the_volume_is_the_number_of_unit_cubes_covered(points: list[tuple[float, ...]]) -> None:
    goals = (Goal("a"), Goal("b"), Goal("c"))
    cubes = itertools.product(range(4), repeat=3)
    covered = sum(
        any(all(x <= corner for x, corner in zip(p, cube, strict=True)) for p in points)
        for cube in cubes
    )
    assert hypervolume(points, (4.0, 4.0, 4.0), goals) == pytest.approx(covered)


@given(points_of(2), st.tuples(few, few))
def test_another_point_never_makes_the_volume_less(
    points: list[tuple[float, ...]], more: tuple[float, float]
) -> None:
    before = hypervolume(points, (0.0, 4.0), TWO)
    assert hypervolume([*points, more], (0.0, 4.0), TWO) >= before - 1e-12
