"""Every generator draws the same numbers again after its state was stored and restored."""

from __future__ import annotations

import json
import random

import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset

from secateur.train.packing import pack, unpack
from secateur.train.random_state import capture, restore, seeded


def draw(loader: DataLoader) -> list[object]:
    order = [y.tolist() for (y,) in loader]
    return [torch.rand(3).tolist(), random.gauss(0, 1), np.random.randn(3).tolist(), order]


def test_all_generators_through_json() -> None:
    own = torch.Generator().manual_seed(4)
    loader = DataLoader(TensorDataset(torch.arange(9)), shuffle=True, generator=own)
    random.gauss(0, 1)  # Python's and NumPy's generators keep a second Gaussian for later
    np.random.randn()
    body, tensors = pack(capture(loader))
    first = draw(loader)
    assert draw(loader) != first
    restore(unpack(json.loads(json.dumps(body)), tensors), loader)
    assert draw(loader) == first


def test_seeded_gives_the_callers_state_back_also_after_an_error() -> None:
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    try:
        with seeded(7):
            inside = torch.rand(2)
            raise RuntimeError
    except RuntimeError:
        pass
    assert torch.equal(torch.rand(2), expected)
    torch.manual_seed(7)
    assert torch.equal(inside, torch.rand(2))
    with seeded(None):
        torch.rand(1)
