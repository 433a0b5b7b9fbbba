"""Model and data of `hybrid.yaml`: the dense network of `fashion.py`, and Fashion-MNIST.

    cd benchmarks && secateur run hybrid.yaml

The dense model is trained on the first call and kept in runs/fashion/.
"""

from __future__ import annotations

import torch
from fashion import fashion_data, train_dense
from torch import Tensor, nn

from secateur.zoo.data import Data


def dense() -> tuple[nn.Module, Tensor]:
    """The dense model of seed 0 and an example of 64 images."""
    return train_dense(0), torch.zeros(64, 1, 28, 28)


def data() -> Data:
    """Fashion-MNIST with the validation split of every benchmark."""
    return fashion_data()
