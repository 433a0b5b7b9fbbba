"""Scores made comparable between groups.

A wide layer's units have larger norms than a narrow layer's without being more important. Dividing
by the group's own mean (or maximum) asks how a unit stands within its group. The ranking inside a
group never changes.
"""

from __future__ import annotations

from torch import Tensor

from secateur.core.plan import Scores


def normalise(scores: Scores, how: str) -> dict[str, Tensor]:
    """Scores divided per group by their "mean", "max" or nothing ("none").

    >>> import torch
    >>> normalise({"a": torch.tensor([1.0, 3.0])}, "mean")["a"].tolist()
    [0.5, 1.5]
    """
    return {id: _normalise(values, how) for id, values in scores.items()}


def _normalise(values: Tensor, how: str) -> Tensor:
    if how == "none":
        return values
    scale = values.abs().mean() if how == "mean" else values.abs().max()
    return values / scale if scale > 0 else values
