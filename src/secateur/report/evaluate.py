"""A model's line of the comparison: counted from its tensors, scored by a given metric."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from secateur.core.modes import evaluating
from secateur.cost.latency import Latency
from secateur.report.row import ModelRow

Metric = Callable[[nn.Module], float]
"""A model in evaluation mode -> its share of correct answers on held-out data, in [0, 1]."""


def evaluate(
    model: nn.Module,
    name: str,
    *,
    macs: int,
    peak_memory_bytes: int | None = None,
    metric: Metric | None = None,
    latency: Latency | None = None,
) -> ModelRow:
    """The row of `model`: parameters and bytes counted here, tied tensors once.

    `macs` and `peak_memory_bytes` come from `secateur.cost`, `latency` from `measure_latency`.
    The model's training flags are as before when this returns.
    Raises: ValueError when the metric is not a share in [0, 1].
    """
    params, size_bytes = count_tensors(model)
    return ModelRow(
        name=name,
        params=params,
        macs=macs,
        size_bytes=size_bytes,
        peak_memory_bytes=peak_memory_bytes,
        latency=latency,
        accuracy=None if metric is None else measure_accuracy(model, metric),
        zeros=count_zeros(model),
    )


def count_tensors(model: nn.Module) -> tuple[int, int]:
    """Number of parameters, and bytes of parameters and buffers; tied ones count once.

    >>> count_tensors(nn.Linear(3, 2))
    (8, 32)
    """
    params = list(model.parameters())
    tensors = [*params, *model.buffers()]
    return (
        sum(tensor.numel() for tensor in params),
        sum(tensor.numel() * tensor.element_size() for tensor in tensors),
    )


def count_zeros(model: nn.Module) -> int:
    """Entries of weights, which are the parameters of two or more dimensions, that are zero.

    >>> count_zeros(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))
    0
    """
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    return sum(weight.numel() - int(torch.count_nonzero(weight)) for weight in weights)


@torch.no_grad()
def measure_accuracy(model: nn.Module, metric: Metric) -> float:
    """The metric of the model in evaluation mode."""
    with evaluating(model):
        accuracy = float(metric(model))
    if not 0 <= accuracy <= 1:
        raise ValueError(
            f"the metric gave {accuracy} for {type(model).__name__}: it must be a share in [0, 1]; "
            "divide a percentage by 100, and look for NaN outputs"
        )
    return accuracy
