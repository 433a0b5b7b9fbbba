"""The uniform selector, by hand."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.select.uniform import ladder


def test_by_hand() -> None:
    scores = {"a": torch.zeros(10), "b": torch.zeros(5)}
    assert ladder(scores)(0.0) == {"a": 10, "b": 5}
    assert ladder(scores)(0.5) == {"a": 5, "b": 3}  # rounded up: never more than asked goes
    assert ladder(scores)(0.3) == {"a": 7, "b": 4}
    assert ladder(scores)(1.0) == {"a": 0, "b": 0}


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.floats(0, 1), st.floats(0, 1))
def test_deeper_never_asks_for_more(sizes: list[int], one: float, other: float) -> None:
    scores = {str(k): torch.zeros(size) for k, size in enumerate(sizes)}
    shallow, deep = (ladder(scores)(level) for level in sorted((one, other)))
    assert all(deep[id] <= shallow[id] for id in scores)
