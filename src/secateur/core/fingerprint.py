"""Which model is this: a hash of its tensors' names and shapes and its modules' classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from torch import Tensor, nn


def named_modules(model: nn.Module, *, repeated: bool = False) -> list[tuple[str, nn.Module]]:
    """Every module by path in the order of `nn.Module.named_modules`, shared ones once unless
    `repeated`.

    torch's own hands each path up through a generator for every level of nesting.
    """
    found: list[tuple[str, nn.Module]] = []
    seen: set[int] = set()
    waiting: list[tuple[str, nn.Module]] = [("", model)]
    while waiting:
        path, module = waiting.pop()
        if not repeated:
            if id(module) in seen:
                continue
            seen.add(id(module))
        found.append((path, module))
        children = module._modules
        if children:
            inner = f"{path}." if path else ""
            waiting += [
                (inner + name, m) for name, m in reversed(children.items()) if m is not None
            ]
    return found


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name, tied ones under each, parameters first."""
    modules = named_modules(model, repeated=True)
    for registry in ("_parameters", "_buffers"):
        for path, module in modules:
            for name, tensor in getattr(module, registry).items():
                if tensor is not None:
                    yield (f"{path}.{name}" if path else name), tensor


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names and shapes of all tensors and names and classes of all modules."""
    parts = [f"{name}:{tuple(tensor.shape)};" for name, tensor in named_tensors(model)]
    parts += [f"{name}={type(module).__qualname__};" for name, module in named_modules(model)]
    return hashlib.sha256("".join(parts).encode()).hexdigest()
