"""Batch-norm re-estimation: the running means and variances anew, after weights have changed.

A cut or an average of weights moves what reaches a batch norm, and the statistics that were kept
during training no longer fit. A few forwards without any training put that right.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any

import torch
from torch import nn

from secateur.core.errors import TrainError
from secateur.core.modes import evaluating
from secateur.train.batches import device_of, predict, to_device


def reestimate_norms_(model: nn.Module, data: Iterable[Any], *, batches: int | None = None) -> int:
    """Reset the statistics of every batch norm and take them from `data`; returns how many norms.

    The mean over batches of each batch's mean and (unbiased) variance, each batch counting the
    same. Everything else of the model is in eval mode, so dropout does not disturb the statistics.
    data: batches `(x, y)`, `(x,)`, tensors, or mappings. batches: so many of them, None for all.
    Source: Izmailov et al., UAI 2018, arXiv 1803.05407, section 3.2 (after averaging weights).
    Raises: TrainError when there is no batch; the model is then unchanged.

    >>> model = nn.Sequential(nn.BatchNorm1d(2))
    >>> reestimate_norms_(model, [torch.tensor([[0.0, 1.0], [2.0, 1.0]])])
    1
    >>> model[0].running_mean.tolist(), model[0].training
    ([1.0, 1.0], True)
    """
    norms = _norms(model)
    if not norms:
        return 0
    momenta, device = [norm.momentum for norm in norms], device_of(model)
    rest = iter(islice(data, batches))
    first = next(rest, None)
    if first is None:
        raise TrainError("the data is empty: batch norms are re-estimated from at least one batch")
    try:
        with evaluating(model), torch.no_grad():
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # torch's name for a cumulative average
                norm.train()
            for batch in chain([first], rest):
                _forward(model, to_device(batch, device))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)


def _norms(model: nn.Module) -> list[Any]:
    kind = nn.modules.batchnorm._NormBase
    found = [m for m in model.modules() if isinstance(m, kind) and m.running_mean is not None]
    # instance norms share the class; what they keep is taken over single samples
    return [m for m in found if not isinstance(m, nn.modules.instancenorm._InstanceNorm)]


def _forward(model: nn.Module, batch: Any) -> None:
    if isinstance(batch, Mapping):
        model(**batch)
    elif isinstance(batch, tuple):  # (x, ..., y), the labels last; (x,) has none
        predict(model, batch[:-1] if len(batch) > 1 else batch)
    else:
        model(batch)
