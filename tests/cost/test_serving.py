"""Money for a million requests, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from secateur.cli.serving_words import serving_line
from secateur.cost.serving import cost_per_million


def test_by_hand():
    # 10 ms a request: 360,000 an hour, 2.78 hours for a million
    assert cost_per_million(10.0, price_per_hour=3.6) == pytest.approx(10.0)
    assert cost_per_million(10.0, 4, price_per_hour=3.6) == pytest.approx(2.5)
    assert cost_per_million(10.0, price_per_hour=3.6, replicas=2) == pytest.approx(5.0)
    assert cost_per_million(10.0, price_per_hour=3.6, utilisation=0.5) == pytest.approx(20.0)


@pytest.mark.parametrize(
    "wrong", [{"price_per_hour": 0.0}, {"replicas": 0}, {"utilisation": 1.5}, {"latency_ms": -1.0}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]):
    given: dict[str, Any] = {"latency_ms": 10.0, "price_per_hour": 1.0} | wrong
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        cost_per_million(**given)


def test_in_words():
    line = serving_line(10.0, 5.0, batch=1, price_per_hour=3.6)
    assert line.startswith("a million requests cost 10.0 before and 5.00 after, at 3.6 an hour")
