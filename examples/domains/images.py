"""Image classification: a small residual network on Fashion-MNIST, judged by test accuracy.

`python examples/domains/images.py` needs `apt-get install dataset-fashion-mnist`. Network and data
are those of `benchmarks/fashion.py`, which trains the dense model once (about a quarter of an hour)
and keeps it in runs/fashion. Recovery is three epochs of distillation from the dense model.
"""

from __future__ import annotations

import torch
from comparison import Domain, compare, show
from sources import ROOT
from torch import nn

import secateur as sc
from secateur.train import Logits, TensorBatches, accuracy, distilled

EPOCHS = 3
CALIBRATION = 512


def domain(name: str = "images", seed: int = 0) -> Domain:
    """The dense model of a seed; at a quarter of its multiply-accumulates."""
    from fashion import Augmented, fashion_data, settings, test_batches, train_dense

    data = fashion_data()
    dense = train_dense(seed, data=data)
    objective = distilled(
        nn.functional.cross_entropy, dense, terms=[Logits(0.9, temperature=4.0)], hard=0.1
    )

    def train(model: nn.Module) -> None:
        sc.finetune(
            model,
            Augmented(data, seed=100 + seed),
            settings=settings(EPOCHS, lr=0.02, seed=seed),
            objective=objective,
        )

    chosen = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(seed))
    x, y = (tensor[chosen[:CALIBRATION]] for tensor in data.train.tensors)
    calibration = TensorBatches(x, y, batch_size=64, shuffle=False)
    test = test_batches(data)
    options = {"data": list(calibration), "selector": "global", "normalise": "none"}
    return Domain(
        name, "accuracy", dense, data.test.tensors[0][:64], train,
        lambda model: accuracy(model, test), "macs=25%", "output_error", options,
    )  # fmt: skip


if __name__ == "__main__":
    print(f"the dense model is kept in {ROOT / 'runs' / 'fashion'}")
    show(compare(domain()))
