"""Which model is this: a hash of its tensors' names and shapes and its modules' classes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

NamedModules = list[tuple[str, nn.Module]]
"""Modules with their paths, the root first."""


def named_modules(model: nn.Module, *, repeated: bool = False) -> NamedModules:
    """Every module by path in the order of `nn.Module.named_modules`, shared ones once unless
    `repeated`.

    torch's own hands each path up through a generator for every level of nesting.
    """
    found: NamedModules = []
    seen: set[int] = set()
    waiting: NamedModules = [("", model)]
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


def distinct(modules: NamedModules) -> NamedModules:
    """The modules of a walk that repeats shared ones, each once, under its first path."""
    own = {id(module) for _, module in modules}
    return modules if len(own) == len(modules) else named_modules(modules[0][1])


def named_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter and buffer under every name, tied ones under each, parameters first."""
    return tensors_of(named_modules(model, repeated=True))


def tensors_of(modules: NamedModules) -> Iterator[tuple[str, Tensor]]:
    """The parameters and buffers of a walk's modules, parameters first."""
    for registry in ("_parameters", "_buffers"):
        for path, module in modules:
            for name, tensor in getattr(module, registry).items():
                if tensor is not None:
                    yield (f"{path}.{name}" if path else name), tensor


def own_class(kind: type[nn.Module]) -> type[nn.Module]:
    """The class that a module was written as: FSDP2 makes one of its own from each it shards."""
    bases = kind.__bases__
    if len(bases) == 2 and bases[0].__module__.startswith("torch.distributed.fsdp"):
        return bases[1]
    return kind


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over names and shapes of all tensors and names and classes of all modules."""
    modules = named_modules(model, repeated=True)
    parts = [f"{name}:{tuple(tensor.shape)};" for name, tensor in tensors_of(modules)]
    parts += [
        f"{name}={own_class(type(module)).__qualname__};" for name, module in distinct(modules)
    ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and the bytes of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in named_tensors(model):
        digest.update(name.encode())
        content = tensor.detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(content.numpy().tobytes())
    return digest.hexdigest()
