"""Model and data of a command, fetched from what its settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.cli.settings import Source
from secateur.core.modes import evaluating
from secateur.core.world import ALONE, World
from secateur.train.batches import TensorBatches
from secateur.train.evaluate import accuracy

if TYPE_CHECKING:
    from torch.utils.data import TensorDataset

    from secateur.zoo.data import Data
    from secateur.zoo.loaded import LoadedModel

CALIBRATION_BATCH = 64

loss_fn = F.cross_entropy
"""Every data set that a name stands for is one of classification."""


@dataclass(frozen=True)
class Batches:
    """The splits of a data set as batches. validate: accuracy on the validation split, by all ranks
    that share it. validate_by: the same by the ranks of a `world`, each alone without. measure:
    accuracy on the test split."""

    name: str
    train: TensorBatches
    validate: Callable[[nn.Module], float]
    validate_by: Callable[..., float]
    measure: Callable[[nn.Module], float]


def fetch_model(source: Source, *, seed: int = 0, device: str | None = None) -> LoadedModel:
    """The model with its example inputs, on `device`. Raises: ValueError, StorageError."""
    from secateur.zoo.models import load_model

    loaded = load_model(
        source.model, weights=source.weights, seed=seed, image_size=source.image_size
    )
    if device is None:
        return loaded

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device)

    example = pytree.tree_map_only(Tensor, move, loaded.example_inputs)
    return replace(loaded, model=loaded.model.to(device), example_inputs=example)


def fetch_data(spec: str | None) -> Data | None:
    """The data set that a name stands for, None for none. Raises: ValueError."""
    from secateur.zoo.data import load_data

    return None if spec is None else load_data(spec)


def check_fits(loaded: LoadedModel, data: Data | None) -> None:
    """Try the model on one sample. Raises: ValueError that names the shapes and the cause."""
    if data is None:
        return
    device = next(loaded.model.parameters()).device
    sample = data.test.tensors[0][:1].to(device)
    try:
        with evaluating(loaded.model), torch.no_grad():
            loaded.model(sample)
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(
            f"model {loaded.name} does not take the inputs of data {data.name!r}, of shape "
            f"{data.input_shape}: {str(error).splitlines()[0]}. Name other data, or leave it out"
        ) from error


def make_batches(data: Data, *, batch_size: int, seed: int, world: World = ALONE) -> Batches:
    """Shuffled training batches, and accuracy on the other two splits; validated by all ranks of a
    world together, measured by any of them alone."""
    size = min(batch_size, len(data.train))
    whole = partial(accuracy, data=list(_in_order(data.validation, batch_size)))
    return Batches(
        name=data.name,
        train=TensorBatches(*data.train.tensors, batch_size=size, seed=seed),
        validate=whole if world.size == 1 else partial(whole, world=world),
        validate_by=whole,
        measure=partial(accuracy, data=list(_in_order(data.test, batch_size))),
    )


def calibration(data: Data | None, *, samples: int, seed: int) -> list[Any] | None:
    """The first `samples` of the shuffled training split, in batches; None without data."""
    if data is None:
        return None
    size = min(CALIBRATION_BATCH, samples, len(data.train))
    batches = TensorBatches(*data.train.tensors, batch_size=size, seed=seed)
    return list(islice(batches, max(1, samples // size)))


def on_device(batches: list[Any] | None, device: torch.device) -> list[Any] | None:
    """Batches where the model is."""
    return None if batches is None else [tuple(t.to(device) for t in batch) for batch in batches]


def _in_order(split: TensorDataset, batch_size: int) -> Iterator[tuple[Tensor, ...]]:
    parts = (torch.split(tensor, batch_size) for tensor in split.tensors)
    return zip(*parts, strict=True)
