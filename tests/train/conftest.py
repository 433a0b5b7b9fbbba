"""Handwritten digits and a small network, shared by the tests of recovery."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

MakeModel = Callable[[], nn.Module]


class Digits(NamedTuple):
    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


@pytest.fixture(scope="session")
def digits() -> Digits:
    """Images of shape [samples, 1, 8, 8] in [0, 1]; a fifth is held out."""
    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(y, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    images, labels, split = images[order], labels[order], len(labels) // 5
    return Digits(images[split:], labels[split:], images[:split], labels[:split])


@pytest.fixture
def make_model() -> MakeModel:
    """A network with batch norm and dropout, so that buffers and random numbers matter too."""

    def make() -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(
            nn.Conv2d(1, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(0.2),
            nn.Linear(8 * 36, 10),
        )

    return make
