"""A forward on a calibration batch, for criteria that look at activations and not at a loss."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.modes import evaluating, without_fast_path
from secateur.criteria.shares import no_batch, numbered


def run_batches(model: nn.Module, data: Iterable[Any]) -> int:
    """Run every batch of this rank in evaluation mode, without gradients; how many there were.

    Raises: ScoreError when the whole data has none.
    """
    known, count = numbered(data), 0
    with evaluating(model), torch.no_grad(), without_fast_path():
        for _, batch in known.pairs:
            run_batch(model, batch)
            count += 1
    if not count and not known.is_share:
        raise no_batch()
    return count


def run_batch(model: nn.Module, batch: Any) -> Any:
    """The outputs for a batch: keyword arguments, (inputs, targets), or inputs alone."""
    args, kwargs = inputs_of(model, batch)
    return model(*args, **kwargs)


def inputs_of(model: nn.Module, batch: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What a batch gives to the model, on the model's device; targets are left out."""
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))

    def placed(value: Any) -> Any:
        return value.to(device) if isinstance(value, Tensor) else value

    pair = isinstance(batch, (tuple, list)) and len(batch) == 2
    inputs = batch[0] if pair else batch
    if isinstance(inputs, Mapping):
        return (), {name: placed(value) for name, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return tuple(placed(value) for value in inputs), {}
    return (placed(inputs),), {}


@contextmanager
def plain_recurrence(model: nn.Module) -> Iterator[None]:
    """Recurrent layers run step by step inside: the fused kernels cannot be differentiated twice,
    and hide what their weights are multiplied with."""
    if not any(isinstance(module, nn.RNNBase) for module in model.modules()):
        yield
        return
    set_flags: Any = torch.backends.mkldnn.set_flags  # the only way that does not touch TF32
    fused = set_flags(_enabled=False, _fp32_precision=None)[0]
    try:
        with torch.backends.cudnn.flags(enabled=False):
            yield
    finally:
        set_flags(_enabled=fused, _fp32_precision=None)
