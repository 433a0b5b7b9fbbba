"""Sensitivities as a value: rises of the loss by hand, JSON, what does not belong together."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.errors import PlanMismatchError
from secateur.core.sensitivities import Curve, Sensitivities, ascending, unit_rises

CURVE = Curve(8, (2, 4, 6), (1.2, 2.0, 4.0))
FOUND = Sensitivities("g", 1.0, {"a": CURVE}, 0.9, {"depths": [0.25, 0.5, 0.75]})


def test_rises_by_hand() -> None:
    # on average 0.1, 0.4 and 1.0 a unit, at 1, 3 and 5 units; units lie at 0.5, 1.5, ..
    expected = [0.025, 0.175, 0.325, 0.55, 0.85, 1.15, 1.45, 1.75]
    left = np.array([8, 7, 6, 5, 4, 3, 2, 1]) / 8  # before each of them goes
    np.testing.assert_allclose(unit_rises(CURVE, 1.0), expected / left**2)


def test_the_lowest_scores_cost_least_and_losses_add_up() -> None:
    scores = torch.tensor([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0])
    rise_U = FOUND.rises({"a": scores})["a"]
    assert rise_U.dtype == torch.float64
    assert rise_U.argsort().tolist() == scores.argsort().tolist()
    assert FOUND.price({"a": 4}) == pytest.approx(float(rise_U.sort().values[:4].sum()))
    assert FOUND.price({"a": 8}) == 0


def test_a_loss_that_falls_is_noise() -> None:
    found = unit_rises(Curve(4, (1, 2, 3), (0.9, 1.5, 1.3)), 1.0)
    assert (found >= 0).all() and (np.diff(found) >= 0).all()
    assert unit_rises(Curve(4, (2,), (0.5,)), 1.0).tolist() == [0.0] * 4


@given(st.integers(3, 90), st.lists(st.floats(-2, 9), min_size=1, max_size=5), st.floats(-1, 1))
def test_rises_never_descend(size: int, losses: list[float], dense: float) -> None:
    removed = sorted(
        {max(1, round(size * (k + 1) / (len(losses) + 1))) for k in range(len(losses))}
    )
    found = unit_rises(Curve(size, tuple(removed), tuple(losses[: len(removed)])), dense)
    assert len(found) == size
    assert (found >= 0).all() and (np.diff(found) >= -1e-9).all()


def test_ascending_by_weights() -> None:
    assert ascending([3.0, 1.0], [1.0, 3.0]).tolist() == [1.5, 1.5]
    assert ascending([1.0, 2.0], [1.0, 1.0]).tolist() == [1.0, 2.0]


def test_json_and_files(tmp_path) -> None:
    assert Sensitivities.from_json(FOUND.to_json()) == FOUND
    FOUND.save(tmp_path / "s.json")
    assert Sensitivities.load(tmp_path / "s.json") == FOUND
    assert FOUND.hash == Sensitivities.load(tmp_path / "s.json").hash
    with pytest.raises(PlanMismatchError, match="secateur sensitivity MODEL"):
        Sensitivities.from_json("{}")


def test_other_groups_are_refused() -> None:
    with pytest.raises(PlanMismatchError, match="'b' of 3 units was not measured"):
        FOUND.rises({"b": torch.rand(3)})
    with pytest.raises(PlanMismatchError, match="'a' of 3 units had 8 units"):
        FOUND.rises({"a": torch.rand(3)})
