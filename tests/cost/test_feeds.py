"""Example inputs as named arrays, and calibration batches cut to the batch that is served."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from secateur.cost.runtimes.feeds import feed_of, feeds_of


def test_inputs_get_the_names_of_the_runtime():
    x, y = torch.zeros(2, 3), torch.ones(2)
    assert list(feed_of(x, ["input"])) == ["input"]
    assert feed_of((x, y), ["a", "b"])["b"].tolist() == [1.0, 1.0]
    assert list(feed_of({"ids": x, "mask": y}, ["mask"])) == ["mask"]


def test_batches_are_cut_to_the_size_of_a_forward():
    batches = [torch.arange(5.0)[:, None], torch.arange(5.0, 7.0)[:, None]]
    found = [feed["x"][:, 0].tolist() for feed in feeds_of(batches, ["x"], like=torch.zeros(2, 1))]
    assert found == [[0.0, 1.0], [2.0, 3.0], [5.0, 6.0]]  # 4.0 is left over
    named = [{"x": torch.ones(4, 1), "scale": torch.tensor(2.0)}]
    pair = list(feeds_of(named, ["x", "scale"], like={"x": torch.ones(2, 1)}))
    assert len(pair) == 2 and np.array_equal(pair[1]["scale"], np.float32(2.0))


def test_too_few_samples_are_said():
    with pytest.raises(ValueError, match="do not hold the 8 samples of one forward"):
        list(feeds_of([torch.zeros(4, 1)], ["x"], like=torch.zeros(8, 1)))
