"""What `same_latency.py` prunes: a trained model, how it recovers, how it is judged.

The Fashion-MNIST network of `fashion.py`, and MiniLM that tells the department of a review, of
`examples/domains/reviews.py`; each once for every seed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fashion import Augmented, fashion_data, settings, test_batches, train_dense
from torch import Tensor, nn

import secateur as sc
from secateur.train import accuracy

ROOT = Path(__file__).parents[1]
REVIEWS = 2880, 6000  # to train on, and to test on: 640, as in the example, tell too little
LOOKS = 750  # validation images of Fashion-MNIST that sensitivities are measured on


@dataclass(frozen=True)
class Task:
    """example: of one forward whose time counts, with its batch. calibration: batches of training
    data that scores and short training look at. held: (inputs, labels) or dicts that sensitivities
    are measured on. short: some steps of training before each look. recover: the whole recovery, in
    place. options: of every plan. widths: multiples that trying is done in."""

    dense: nn.Module
    example: Any
    batch_size: int
    calibration: list[Any]
    held: list[Any]
    loss_fn: Callable[[Any, Any], Tensor] | None
    short: Callable[[nn.Module], object]
    recover: Callable[[nn.Module], object]
    accuracy: Callable[[nn.Module, str], float]
    depths: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    widths: tuple[int, ...] = (1, 8, 16)


def fashion(seed: int, epochs: int) -> Task:
    """The residual network at batch 64; plain cross-entropy, SGD, a one-cycle learning rate."""
    data = fashion_data()
    x, y = (part[:LOOKS] for part in data.validation.tensors)
    calibration = list(islice(Augmented(data, seed=50 + seed), 16))

    def short(model: nn.Module) -> None:
        _steps(model, calibration[:8], F.cross_entropy, lr=0.01)

    def recover(model: nn.Module) -> None:
        how = settings(epochs, lr=0.02, seed=seed)
        sc.finetune(model, Augmented(data, seed=100 + seed), settings=how, loss_fn=F.cross_entropy)

    return Task(
        dense=train_dense(seed, data=data),
        example=data.validation.tensors[0][:1],
        batch_size=64,
        calibration=calibration,
        held=list(zip(torch.split(x, 250), torch.split(y, 250), strict=True)),
        loss_fn=F.cross_entropy,
        short=short,
        recover=recover,
        accuracy=lambda model, split: accuracy(model, test_batches(data, split=split)),
        depths=(0.25, 0.5, 0.75, 0.9),
    )


def reviews(seed: int, epochs: int) -> Task:
    """MiniLM at batch 16 of 24 tokens; its word vectors stay whole."""
    sys.path[:0] = [str(ROOT / "examples" / "domains")]
    from reviews import domain

    made = domain("reviews", seed, REVIEWS)
    seen = list(made.options["data"])
    example = {name: t[:1] for name, t in made.example.items()}

    def recover(model: nn.Module) -> None:
        made.train(model)

    return Task(
        dense=made.model,
        example=example,
        batch_size=16,
        calibration=seen,
        held=seen[:6],
        loss_fn=None,
        short=lambda model: _steps(model, seen[6:10], None, lr=0.003),
        recover=recover,
        accuracy=lambda model, split: made.measure(model),
        depths=(0.25, 0.5, 0.75),
        options={"keep_modules": "bert.embeddings.word_embeddings"},
        widths=(16,),
    )


TASKS = {"fashion": fashion, "reviews": reviews}


def _steps(model: nn.Module, batches: list[Any], loss_fn: Any, *, lr: float) -> None:
    """One step of SGD on each batch; a unit that was zeroed stays zero."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    model.train()
    for loss in _losses(model, batches, loss_fn):
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
    model.eval()


def _losses(model: nn.Module, batches: list[Any], loss_fn: Any) -> Iterator[Tensor]:
    for batch in batches:
        if isinstance(batch, dict):
            yield model(**batch).loss
        else:
            x, y = batch
            yield loss_fn(model(x), y)
