"""Train a CNN on handwritten digits, prune it to half, prove the cut, win accuracy back, save it.

Run it with `python examples/prune_a_cnn.py`; it takes a few seconds.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import nn

import secateur as sc
from secateur.train import TensorBatches, accuracy
from secateur.zoo.data import load_data

OUT = Path("runs/prune_a_cnn")


def build() -> nn.Module:
    """Three convolutions and a linear layer, for 8 x 8 grey images."""
    return nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 10)),
    )


def main() -> None:
    """Every step prints one line."""
    torch.manual_seed(0)
    digits = load_data("digits")
    batches = TensorBatches(*digits.train.tensors, batch_size=64)
    validate = partial(accuracy, data=[digits.validation.tensors])
    test = partial(accuracy, data=[digits.test.tensors])
    loss_fn = nn.CrossEntropyLoss()

    dense = build()
    training = sc.FinetuneSettings(epochs=6, lr=0.05, schedule="one_cycle", warmup=0.2)
    sc.finetune(dense, batches, settings=training, loss_fn=loss_fn, validate=validate)
    print(f"dense:     {test(dense):.1%} of {len(digits.test)} test images right")

    example = digits.test.tensors[0][:8]
    result = sc.prune(
        dense, example, budget="macs=50%,params=50%", criterion="taylor", data=batches,
        loss_fn=loss_fn, selector="global", min_units=4,
    )  # fmt: skip
    assert result.proof is not None
    print(f"cut:       {result.before.params:,} -> {result.after.params:,} parameters,")
    print(f"           {result.before.macs:,} -> {result.after.macs:,} multiply-accumulates")
    print(f"proof:     error {result.proof.max_abs_error:.1e} against the masked original")
    print(f"just cut:  {test(result.model):.1%}")

    recovery = sc.FinetuneSettings(epochs=4, lr=0.02)
    sc.finetune(result.model, batches, settings=recovery, loss_fn=loss_fn, validate=validate)
    print(f"recovered: {test(result.model):.1%}")

    sc.save(result.model, OUT, plan=result.plan, example=example)
    again = sc.load(OUT, build).eval()
    with torch.no_grad():
        assert torch.equal(again(example), result.model.eval()(example))
    print(f"saved in {OUT}, and loaded again with equal outputs")


if __name__ == "__main__":
    main()
