"""How sparse a model is, layer by layer: what masks hide, and what is plainly zero."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from secateur.masks.targets import targets


@dataclass(frozen=True, slots=True)
class LayerSparsity:
    """One parameter: how many weights it has and how many of them are zero."""

    name: str
    weights: int
    zeros: int

    @property
    def sparsity(self) -> float:
        """Share of zeros.

        >>> LayerSparsity("fc.weight", 8, 6).sparsity
        0.75
        """
        return self.zeros / self.weights if self.weights else 0.0

    def to_json(self) -> dict[str, Any]:
        """A row for a report."""
        return {**asdict(self), "sparsity": self.sparsity}


def sparsity(model: nn.Module, *, skip: Iterable[str] = ()) -> tuple[LayerSparsity, ...]:
    """The zeros of every parameter of two or more dimensions, as the modules read them.

    >>> layer = nn.Linear(2, 2)
    >>> _ = torch.nn.init.eye_(layer.weight)
    >>> sparsity(layer)
    (LayerSparsity(name='weight', weights=4, zeros=2),)
    """
    rows = []
    for target in targets(model, skip=skip):
        nonzero = target.parameter.detach() != 0
        if target.kept is not None:
            nonzero &= target.kept
        count = int(torch.count_nonzero(nonzero))
        rows.append(LayerSparsity(target.name, nonzero.numel(), nonzero.numel() - count))
    return tuple(rows)
