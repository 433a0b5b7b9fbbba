"""What automatic pruning does next, for histories written by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from secateur.search.auto_strategy import ATTEMPTS, FLOOR, MET, Move, Rules, best_of, next_move
from secateur.search.auto_values import AutoSettings, AutoStep, progress_of, shares_at

RULES = Rules({"macs": 0.25}, dense=0.9, floor=0.89, steps=2, attempts=8, ways=2)
GOOD, NEAR, FAR = 0.895, 0.885, 0.5


def step(number: int, asked: float, metric: float | None, **more: object) -> AutoStep:
    values = {
        "number": number,
        "kind": "cut",
        "base": 0,
        "asked": asked,
        "reached": asked,
        "way": 0,
        "long": False,
        "shares": shares_at(asked, RULES.target),
        "metric_cut": metric,
        "metric": metric,
        "holds": metric is not None and metric >= RULES.floor,
    }
    return AutoStep(**{**values, **more})  # type: ignore[arg-type]


def test_the_way_is_divided_and_only_the_last_recovery_is_long():
    assert next_move([], RULES) == Move("cut", 0, 0.5, 0, False)
    first = step(1, 0.5, GOOD)
    assert next_move([first], RULES) == Move("cut", 1, 1.0, 0, True)
    second = step(2, 1.0, GOOD, base=1)
    assert second.met and next_move([first, second], RULES) == MET
    assert best_of([first, second]) is second


def test_a_near_miss_is_trained_on_then_cut_in_another_way_then_halved():
    history = [step(1, 0.5, GOOD), step(2, 1.0, NEAR, base=1)]
    assert next_move(history, RULES) == Move("longer", 2, 1.0, 0, True)
    history += [step(3, 1.0, NEAR, base=2, kind="longer")]
    assert next_move(history, RULES) == Move("cut", 1, 1.0, 1, True)
    history += [step(4, 1.0, NEAR + 0.001, base=1, way=1)]
    assert next_move(history, RULES) == Move("cut", 1, 0.75, 1, True)  # the way that did best
    history += [step(5, 0.75, GOOD, base=1, way=1)]
    assert next_move(history, RULES) == Move("cut", 5, 1.0, 0, True)  # long from now on


def test_a_model_far_below_the_floor_is_given_up_at_once():
    history = [step(1, 0.5, FAR)]
    assert next_move(history, RULES) == Move("cut", 0, 0.25, 0, True)
    impossible = replace(history[0], metric=None, metric_cut=None, shares={}, reached=0.0)
    assert next_move([impossible], RULES) == Move("cut", 0, 0.25, 0, True)


def test_it_ends_when_half_a_step_is_too_small_to_matter():
    history, number = [], 0
    while isinstance(move := next_move(history, replace(RULES, attempts=100)), Move):
        number += 1
        history.append(step(number, move.asked, FAR))
    assert move == FLOOR
    assert [one.asked for one in history] == [0.5, 0.25, 0.125, 0.0625, 0.03125]
    assert next_move(history, replace(RULES, attempts=5)) == ATTEMPTS


def test_a_waypoint_is_not_asked_for_twice_when_the_floor_held():
    short_of_it = step(1, 0.5, GOOD, reached=0.4)
    assert next_move([short_of_it], RULES) == Move("cut", 1, 1.0, 0, True)
    missed = step(2, 1.0, GOOD, base=1, reached=0.99)
    assert not missed.met
    assert next_move([short_of_it, missed], RULES) == Move("cut", 2, 1.0, 0, True)


def test_progress_is_that_of_the_limit_that_lags_behind():
    target = {"macs": 0.25, "params": 0.04}
    assert progress_of({"macs": 0.5, "params": 0.04}, target) == pytest.approx(0.5)
    assert progress_of({"macs": 0.25, "params": 0.04}, target) == 1.0
    assert progress_of({"macs": 0.2500001, "params": 0.01}, target) < 1.0
    assert progress_of({"macs": 1.02}, {"macs": 0.25}) == 0.0  # noise of a measurement
    assert progress_of({"macs": 1.0}, {"macs": 1.5}) == 1.0
    for progress in (0.0, 0.3, 1.0):
        shares = shares_at(progress, target)
        assert progress_of(shares, target) == pytest.approx(progress)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({}, "say how much may be lost"),
        ({"max_drop": -0.1}, "not negative"),
        ({"max_drop": 0.1, "steps": 0}, "at least 1"),
        ({"max_drop": 0.1, "time_limit_s": 0.0}, "more than nothing"),
        ({"max_drop": 0.1, "ways": ()}, "at least one"),
        ({"max_drop": 0.1, "target": "macs"}, "not understood"),
        ({"max_drop": 0.1, "target": "energy=50%"}, "ask for latency=50%"),
    ],
)
def test_settings_are_checked(wrong: dict[str, object], told: str):
    with pytest.raises(ValueError, match=told):
        AutoSettings(**{"target": "macs=50%", **wrong})  # type: ignore[arg-type]
