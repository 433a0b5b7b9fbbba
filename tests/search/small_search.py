"""A search of seconds: a trained MLP on data that it can learn, and ways to run it."""

from __future__ import annotations

from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from secateur.search.study import Limits, search_front
from secateur.search.study_found import Found
from secateur.search.study_space import Space
from secateur.search.trial_task import Early, Task
from secateur.train import FinetuneSettings, TensorBatches, accuracy, finetune

SMALL = Space(criteria=("l2", "taylor"), line=2)
RECOVERY = FinetuneSettings(epochs=2, lr=0.05, progress=False)


@cache
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(96, 6, generator=generator)
    return x, (x[:, 0] + x[:, 1] > x[:, 2] + x[:, 3]).long()


@cache
def trained() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2)
        )
    x, y = samples()
    finetune(
        model,
        TensorBatches(x, y, batch_size=32),
        settings=FinetuneSettings(epochs=15, lr=0.2, progress=False),
        loss_fn=F.cross_entropy,
    )
    return model


def wide() -> nn.Module:
    """A model whose time is spent in arithmetic."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 384), nn.ReLU(), nn.Linear(384, 384), nn.ReLU(), nn.Linear(384, 2)
        )


def small_task(**changes: Any) -> Task:
    x, y = samples()
    values: dict[str, Any] = {
        "model": trained(),
        "example_inputs": x[:2],
        "train_data": TensorBatches(x, y, batch_size=32),
        "validate": partial(accuracy, data=[(x, y)]),
        "recovery": RECOVERY,
        "loss_fn": F.cross_entropy,
        "costs": ("macs",),
        "early": Early(margin=0.05),
    }
    return Task(**{**values, **changes})


def searched(folder: Path, trials: int, *, space: Space = SMALL, **changes: Any) -> Found:
    return search_front(small_task(**changes), folder, space=space, limits=Limits(trials=trials))
