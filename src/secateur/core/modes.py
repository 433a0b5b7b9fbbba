"""How a model is run for a comparison: in evaluation mode, each module getting its own mode back
since a user may have frozen some; without torch's fused encoder; drawing the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Give every module its training or evaluation mode back after the block."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block.

    >>> model = nn.Linear(1, 1)
    >>> with evaluating(model):
    ...     model.training
    False
    >>> model.training
    True
    """
    with modes_kept(model):
        model.eval()
        yield


@contextmanager
def without_fast_path() -> Iterator[None]:
    """torch's fused transformer encoder off: it leaves out padded positions, the plain one does
    not, so that one model run in both ways has two answers."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def same_randomness() -> Iterator[None]:
    """What a forward draws at random is the same in each block, and the generator of the caller
    goes on as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
