"""Batches: an in-memory source with a seeded order, and how any batch is taken apart and moved.

A batch is a tuple or list `(x, ..., y)` with the labels last, or a mapping of keyword arguments
as Hugging Face models take them. A source is any iterable of batches that can be read again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from secateur.core.errors import TrainError


@runtime_checkable
class SetsEpoch(Protocol):
    """A source whose order depends on the epoch alone."""

    def set_epoch(self, epoch: int) -> None: ...


class TensorBatches:
    """Batches of tensors that are already in memory, shuffled anew each epoch.

    The order is a function of `seed` and the epoch, so any epoch can be read again exactly.

    >>> data = TensorBatches(torch.arange(5), torch.arange(5), batch_size=2, seed=7)
    >>> first = [y.tolist() for _, y in data]
    >>> data.set_epoch(1)
    >>> [y.tolist() for _, y in data] == first, len(data)
    (False, 3)
    """

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
        drop_last: bool = False,
    ) -> None:
        """Raises: TrainError when the data is empty, unequal in length or smaller than a batch."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if len(x) != len(y):
            raise TrainError(f"x has {len(x)} samples and y has {len(y)}; give one label a sample")
        if len(x) == 0:
            raise TrainError("the data is empty: x and y have 0 samples; give at least one batch")
        if batch_size > len(x):
            raise TrainError(
                f"batch_size {batch_size} is bigger than the data of {len(x)} samples; "
                f"use batch_size={len(x)} or less"
            )
        self.x, self.y = x, y
        self.batch_size, self.shuffle, self.seed, self.drop_last = (
            batch_size,
            shuffle,
            seed,
            drop_last,
        )
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.x) / self.batch_size
        return int(count) if self.drop_last else int(np.ceil(count))

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = self._order()
        for k in range(len(self)):
            chosen = order[k * self.batch_size : (k + 1) * self.batch_size]
            yield self.x[chosen.to(self.x.device)], self.y[chosen.to(self.y.device)]

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.x))
        # mixes both numbers well: seed 0 in epoch 1 is not seed 1 in epoch 0
        mixed = int(np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0])
        return torch.randperm(len(self.x), generator=torch.Generator().manual_seed(mixed))


def set_epoch_(data: object, epoch: int) -> None:
    """Tell a source, or a DataLoader's sampler and data set, which epoch comes (from 0)."""
    parts = [data]
    if isinstance(data, DataLoader):
        parts += [data.sampler, data.batch_sampler, data.dataset]
    for part in parts:
        if isinstance(part, SetsEpoch):
            part.set_epoch(epoch)


def split_batch(batch: Any) -> tuple[tuple[Any, ...], Any]:
    """Positional inputs and labels of a tuple batch.

    Raises: TrainError when it is no tuple or list of at least two.
    """
    if not isinstance(batch, list | tuple) or len(batch) < 2:
        raise TrainError(
            f"a batch is a {type(batch).__name__}; it must be a tuple (x, y) with the labels last, "
            "or a dict of the model's keyword arguments. Wrap the data, for example in "
            "TensorBatches(x, y, batch_size=64)"
        )
    return tuple(batch[:-1]), batch[-1]


def predict(model: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """The model's output; a single mapping is given as keyword arguments."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return model(**inputs[0])
    return model(*inputs)


def samples_in(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor."""
    if isinstance(batch, Tensor):
        return len(batch)
    parts = batch.values() if isinstance(batch, Mapping) else batch
    return next((len(part) for part in parts if isinstance(part, Tensor) and part.ndim), 1)


def labels_digest(batch: Any) -> str:
    """SHA-256 of a batch's labels, to tell whether the same batch came again; empty without.

    Labels, not inputs: augmentation draws anew each time a batch is read, labels stay.
    """
    labels = batch.get("labels") if isinstance(batch, Mapping) else batch[-1]
    if not isinstance(labels, Tensor):
        return ""
    content = labels.detach().cpu().contiguous().view(-1).view(torch.uint8)
    return hashlib.sha256(content.numpy().tobytes()).hexdigest()


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return tuple(to_device(item, device) for item in batch)
    return batch


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter or buffer lies; the CPU when it has none."""
    for tensor in (*model.parameters(), *model.buffers()):
        return tensor.device
    return torch.device("cpu")
