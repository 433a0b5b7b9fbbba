"""A rank's share of a batch: its rows, one after another, and what they weigh.

A loss is the mean over what it counts: samples, or the labels that are not ignored, or class
weights. A rank's mean is weighted by its part of that count, so that the parts add up to the loss
of the whole batch, uneven ones too. A batch of which some rank would have nothing to count is taken
whole by every rank instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

IGNORED = -100


@dataclass(frozen=True, slots=True)
class Weighing:
    """What a loss is a mean over. ignored: the label that does not count. classes: the weight of
    each class. summed: it is a sum and no mean. shifted: the first label of a row is not predicted,
    as in a causal language model."""

    ignored: int = IGNORED
    classes: Tensor | None = None
    summed: bool = False
    shifted: bool = False

    def count(self, batch: Any) -> float:
        """What a loss of a batch is divided by."""
        labels = _labels(batch)
        rows = _rows(batch)
        if labels is None or labels.is_floating_point() or labels.shape[:1] != (rows,):
            return float(rows)
        if self.shifted and labels.ndim > 1:
            labels = labels[:, 1:]
        counted = labels[labels != self.ignored]
        if self.classes is None:
            # of each row the same where nothing is ignored
            return counted.numel() / max(1, labels[0].numel())
        return float(self.classes.to(counted.device)[counted].sum())


BY_SAMPLES = Weighing()
"""A loss that is a mean over samples, or over labels that are not -100."""


@dataclass(frozen=True, slots=True)
class Share:
    """batch: the rows to compute. weight: of their loss in the loss of the whole batch. ranks: how
    many share it. split: whether other ranks have other rows."""

    batch: Any
    weight: float = 1.0
    ranks: int = 1
    split: bool = False

    @property
    def factor(self) -> float:
        """Of the loss, where gradients become means over the ranks afterwards."""
        return self.weight * self.ranks


def share_of(batch: Any, *, rank: int, size: int, weighing: Weighing) -> Share:
    """The rows of one rank.

    >>> import torch
    >>> batch = (torch.arange(5), torch.arange(5))
    >>> shares = [share_of(batch, rank=r, size=2, weighing=Weighing()) for r in (0, 1)]
    >>> [(share.batch[0].tolist(), share.weight) for share in shares]
    [([0, 1], 0.4), ([2, 3, 4], 0.6)]
    """
    rows = _rows(batch)
    parts = [
        _slice(batch, rows, slice(rows * r // size, rows * (r + 1) // size)) for r in range(size)
    ]
    counts = [weighing.count(part) if rows >= size else 0.0 for part in parts]
    if min(counts) <= 0:
        return Share(batch, 1 / size, size, split=False)
    weight = 1.0 if weighing.summed else counts[rank] / sum(counts)
    return Share(parts[rank], weight, size, split=True)


def _slice(value: Any, rows: int, part: slice) -> Any:
    if isinstance(value, Tensor):
        return value[part] if value.ndim and len(value) == rows else value
    if isinstance(value, Mapping):
        return {key: _slice(item, rows, part) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_slice(item, rows, part) for item in value)
    return value


def _rows(batch: Any) -> int:
    """Samples in a batch: the length of its first tensor."""
    parts = batch.values() if isinstance(batch, Mapping) else batch
    for part in [batch] if isinstance(batch, Tensor) else parts:
        if isinstance(part, Tensor) and part.ndim:
            return len(part)
        if isinstance(part, Mapping | list | tuple):
            return _rows(part)
    return 1


def _labels(batch: Any) -> Tensor | None:
    labels = batch.get("labels") if isinstance(batch, Mapping) else None
    if isinstance(batch, list | tuple) and len(batch) > 1:
        labels = batch[-1]
    return labels if isinstance(labels, Tensor) and labels.ndim else None
