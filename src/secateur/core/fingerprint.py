"""Which model is this: a hash of its tensors' names and shapes and its modules' classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor, nn


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name, tied ones under each, parameters first."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names and shapes of all tensors and names and classes of all modules."""
    digest = hashlib.sha256()
    for name, tensor in named_tensors(model):
        digest.update(f"{name}:{tuple(tensor.shape)};".encode())
    for name, module in model.named_modules():
        digest.update(f"{name}={type(module).__qualname__};".encode())
    return digest.hexdigest()
