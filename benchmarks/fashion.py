"""Fashion-MNIST and the ResNet-like CNN that the training benchmarks prune: one definition.

    python benchmarks/fashion.py [--seeds 0 1 2]

trains the dense models and keeps them in runs/fashion/; a run that is killed goes on where it was.
The images come from the Debian package dataset-fashion-mnist (`apt-get install`), or from any
folder with the four idx files. Ten per cent of the training images are the validation split, the
same ones for every seed; accuracies are of the 10,000 test images.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secateur.core.atomic import replacing, write_text
from secateur.train import FinetuneSettings, TensorBatches, accuracy, finetune
from secateur.zoo.data import Data, load_data

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "runs" / "fashion"
FOLDER = Path("/usr/share/datasets/fashion-mnist")  # where the Debian package puts the files
WIDTH = 32
EPOCHS = 20
BATCH = 128
SHIFT = 2  # pixels by which a training image is moved at most


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, as in He et al. 2016, figure 2."""

    def __init__(self, inputs: int, outputs: int, *, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            conv = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class FashionNet(nn.Module):
    """A stem at 28x28, then residual blocks of one, two and four widths at 14, 7 and 4 pixels."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        stages: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for number in range(blocks):
                outputs = width * 2**stage
                stages.append(Block(inputs, outputs, stride=2 if stage and not number else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pool(self.blocks(self.stem(x))).flatten(1))
        return logits


def fashion_net(width: int = WIDTH, *, blocks: int = 1, seed: int = 0) -> nn.Module:
    """A fresh network in channels_last, the faster layout on a CPU; 308,074 parameters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FashionNet(width, blocks).to(memory_format=torch.channels_last)


def fashion_data(folder: str | Path | None = None) -> Data:
    """Train (54,000), validation (6,000) and test (10,000), inputs [N, 1, 28, 28] in [0, 1].

    folder: of the idx files; else $FASHION_MNIST, else where the Debian package has them.
    """
    place = Path(folder or os.environ.get("FASHION_MNIST") or FOLDER)
    if not place.is_dir():
        sys.exit(
            f"Fashion-MNIST is not in {place}: `apt-get install dataset-fashion-mnist`, or set "
            "FASHION_MNIST to a folder with its four idx files"
        )
    return load_data(f"idx:{place}")


@dataclass
class Augmented:
    """Batches with every image moved by up to two pixels and mirrored at random.

    The order and every draw are functions of `seed` and the epoch.
    """

    data: Data
    seed: int = 0
    batch_size: int = BATCH
    epoch: int = 0
    plain: TensorBatches = field(init=False)

    def __post_init__(self) -> None:
        x, y = self.data.train.tensors
        self.plain = TensorBatches(x, y, batch_size=self.batch_size, seed=self.seed, drop_last=True)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        self.plain.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.plain)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        mixed = np.random.SeedSequence([self.seed, self.epoch, 1]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(mixed))
        for x, y in self.plain:
            yield _moved(x, generator), y


def _moved(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    count, size = len(x_BCHW), x_BCHW.shape[-1]
    padded = F.pad(x_BCHW, (SHIFT,) * 4)
    shifts = torch.randint(0, 2 * SHIFT + 1, (2, count, 1), generator=generator)
    flip = torch.rand(count, 1, generator=generator) < 0.5
    steps = torch.arange(size)
    rows, columns = shifts[0] + steps, shifts[1] + torch.where(flip, size - 1 - steps, steps)
    return padded[torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None, :]][
        :, None
    ]


def test_batches(data: Data, *, split: str = "test", batch_size: int = 500) -> TensorBatches:
    """The test (or "validation") images in their order."""
    x, y = getattr(data, split).tensors
    return TensorBatches(x, y, batch_size=batch_size, shuffle=False)


def settings(epochs: int, **changes: Any) -> FinetuneSettings:
    """How the dense models are trained: SGD, one-cycle learning rate, bfloat16 autocast."""
    values: dict[str, Any] = {
        "lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "one_cycle",
        "precision": "bfloat16",
        "progress": False,
    }
    return FinetuneSettings(epochs=epochs, **{**values, **changes})


def train_dense(seed: int, *, data: Data | None = None, epochs: int = EPOCHS) -> nn.Module:
    """The dense model of a seed, from runs/fashion/ or trained now (about twelve CPU minutes)."""
    path = RUNS / f"dense-{seed}.safetensors"
    model = fashion_net(seed=seed)
    if path.is_file():
        model.load_state_dict(load_file(path))
        return model.eval()
    data = data or fashion_data()
    log = finetune(
        model,
        Augmented(data, seed=seed),
        settings=settings(epochs, seed=seed),
        loss_fn=F.cross_entropy,
        checkpoint_dir=RUNS / f"dense-{seed}-checkpoints",
    )
    found = {
        "seed": seed,
        "epochs": epochs,
        "accuracy": accuracy(model, test_batches(data)),
        "validation": accuracy(model, test_batches(data, split="validation")),
        "loss": log.rows[-1].loss,
        "seconds": round(sum(row.seconds for row in log), 1),
    }
    with replacing(path) as beside:
        save_file({name: t.contiguous() for name, t in model.state_dict().items()}, beside)
    write_text(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    return model.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    data = fashion_data()
    for seed in parser.parse_args().seeds:
        train_dense(seed, data=data)
        print((RUNS / f"dense-{seed}.json").read_text(encoding="utf-8").strip(), flush=True)


if __name__ == "__main__":
    main()
