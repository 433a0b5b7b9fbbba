"""What the tasks start from: scikit-learn's handwritten digits and a small CNN trained on them.

1,797 grey images of 8 x 8 pixels, ten classes; a quarter is kept for testing. Training takes about
a second.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

import secateur as sc
from secateur import train
from secateur.zoo.data import load_data

_digits = load_data("digits")
batches = train.TensorBatches(*_digits.train.tensors, batch_size=64)
example: Tensor = _digits.test.tensors[0][:8]


def cnn() -> nn.Sequential:
    """Three convolutions with batch norms and a linear layer: 26,090 parameters."""
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.AdaptiveAvgPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 10)),
    )


def fit(model: nn.Module, *, epochs: int = 2, **more: Any) -> nn.Module:
    """The same model, trained on. more: arguments of `secateur.finetune`."""
    if "objective" not in more:
        more["loss_fn"] = nn.functional.cross_entropy
    settings = sc.FinetuneSettings(
        epochs=epochs, lr=0.05, schedule="one_cycle", warmup=0.3, progress=False
    )
    sc.finetune(model, batches, settings=settings, **more)
    return model


@cache
def _trained() -> nn.Module:
    torch.manual_seed(0)
    return fit(cnn(), epochs=8)


def trained_cnn() -> nn.Module:
    """The CNN after eight epochs; every call gives a copy of its own."""
    return copy.deepcopy(_trained())


def accuracy(model: nn.Module) -> float:
    """Share of the test images that are named rightly, in [0, 1]."""
    return train.accuracy(model, [_digits.test.tensors])
