"""A trained model of your own for `secateur run digits.yaml`: `digits_cnn:trained`.

Here the weights are trained on the first call and kept beside this file; your own callable would
load a checkpoint. It is called again whenever the architecture has to be built again.
"""

from __future__ import annotations

from pathlib import Path

import torch
from prune_a_cnn import build
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import secateur as sc
from secateur.train import TensorBatches
from secateur.zoo.data import load_data

WEIGHTS = Path("digits_cnn.safetensors")


def trained() -> tuple[nn.Module, Tensor]:
    """The model, and example inputs with the shape that it takes."""
    model = build()
    if WEIGHTS.exists():
        model.load_state_dict(load_file(WEIGHTS))
    else:
        digits = load_data("digits")
        batches = TensorBatches(*digits.train.tensors, batch_size=64)
        settings = sc.FinetuneSettings(epochs=6, lr=0.05, schedule="one_cycle", warmup=0.2)
        sc.finetune(model, batches, settings=settings, loss_fn=nn.CrossEntropyLoss())
        save_file(model.state_dict(), WEIGHTS)
    return model, torch.zeros(8, 1, 8, 8)
