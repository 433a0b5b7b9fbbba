"""Evaluation mode for a while: each module gets its own mode back, since a user may have frozen
some."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
