"""The global selector, by hand, and what normalising changes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.select.global_ import ladder
from secateur.select.normalise import normalise

SCORES = {"a": torch.tensor([1.0, 5.0, 2.0]), "b": torch.tensor([10.0, 30.0, 20.0, 40.0, 1.5])}


def test_by_hand() -> None:
    # ascending: a 1, b 1.5, a 2, a 5, b 10, ..
    assert ladder(SCORES)(0.0) == {"a": 3, "b": 5}
    assert ladder(SCORES)(0.25) == {"a": 2, "b": 4}
    assert ladder(SCORES)(0.5) == {"a": 0, "b": 4}
    assert ladder(SCORES)(1.0) == {"a": 0, "b": 0}


def test_ties_go_by_position() -> None:
    assert ladder({"a": torch.ones(2), "b": torch.ones(2)})(0.5) == {"a": 0, "b": 2}


def test_normalising_compares_within_the_group() -> None:
    # divided by the mean: a 0.375 1.875 0.75, b 0.49 1.48 0.99 1.97 0.07
    assert ladder(normalise(SCORES, "mean"))(0.25) == {"a": 2, "b": 4}
    assert ladder(normalise(SCORES, "mean"))(0.5) == {"a": 1, "b": 3}
    assert normalise(SCORES, "max")["b"].max() == 1
    assert normalise(SCORES, "none") == SCORES
    assert normalise({"a": torch.zeros(3)}, "mean")["a"].tolist() == [0, 0, 0]


def test_no_groups() -> None:
    assert ladder({})(0.5) == {}


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_deeper_never_asks_for_more(sizes: list[int], one: float, other: float) -> None:
    generator = torch.Generator().manual_seed(sum(sizes))
    scores = {str(k): torch.rand(size, generator=generator) for k, size in enumerate(sizes)}
    shallow, deep = (ladder(scores)(level) for level in sorted((one, other)))
    assert all(deep[id] <= shallow[id] for id in scores)
    assert sum(deep.values()) == sum(sizes) - int(max(one, other) * sum(sizes) + 1e-9)
