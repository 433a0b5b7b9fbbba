"""The model as it is without its masks: names and order of its parameters, and its fingerprint.

A parametrization moves a parameter to another module and changes its module's class; a plan names
what was there before.
"""

from __future__ import annotations

import hashlib

from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateur.core.fingerprint import named_modules, own_class
from secateur.masks.parametrization import masks_of, original


def dense_leaves(module: nn.Module) -> list[str]:
    """Names of a module's own parameters, masked ones at their place of before."""
    own = [name for name, parameter in module._parameters.items() if parameter is not None]
    masks = masks_of(module)
    if not masks:
        return own
    order = next(iter(masks.values())).order
    both = {*own, *masks}
    return [n for n in order if n in both] + [n for n in own if n not in order]


def other_parametrizations(module: nn.Module) -> list[str]:
    """Names of a module's tensors that have parametrizations which are no masks."""
    if not parametrize.is_parametrized(module):
        return []
    lists: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    return [leaf for leaf in lists if leaf not in masks_of(module)]


def dense_fingerprint(model: nn.Module) -> str:
    """The fingerprint that the model has without its masks.

    >>> from secateur.core.fingerprint import fingerprint
    >>> fingerprint(nn.Linear(2, 2)) == dense_fingerprint(nn.Linear(2, 2))
    True
    """
    hidden = _hidden(model)
    repeated = [m for m in named_modules(model, repeated=True) if id(m[1]) not in hidden]
    digest = hashlib.sha256()
    for path, module in repeated:
        for leaf in dense_leaves(module):
            digest.update(_entry(path, leaf, original(module, leaf)))
    for path, module in repeated:
        for leaf, buffer in module._buffers.items():
            if buffer is not None:
                digest.update(_entry(path, leaf, buffer))
    for path, module in named_modules(model):
        if id(module) not in hidden:
            digest.update(f"{path}={_dense_class(module).__qualname__};".encode())
    return digest.hexdigest()


def _hidden(model: nn.Module) -> set[int]:
    """Ids of the modules that are there for masks alone."""
    found: set[int] = set()
    for _, module in named_modules(model):
        masks = masks_of(module)
        if not masks:
            continue
        lists: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
        for leaf in masks:
            found |= {id(part) for part in lists[leaf].modules()}
        if not other_parametrizations(module):
            found.add(id(lists))
    return found


def _dense_class(module: nn.Module) -> type[nn.Module]:
    kind = type(module)
    only_masks = masks_of(module) and not other_parametrizations(module)
    return own_class(kind.__bases__[0] if only_masks else kind)


def _entry(path: str, leaf: str, tensor: Tensor) -> bytes:
    name = f"{path}.{leaf}" if path else leaf
    return f"{name}:{tuple(tensor.shape)};".encode()


def dense_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by the names they have without masks; under a mask the parameter
    itself, and no masks."""
    hidden = _hidden(model)
    modules = [m for m in named_modules(model) if id(m[1]) not in hidden]
    found: dict[str, Tensor] = {}
    for path, module in modules:
        inner = f"{path}." if path else ""
        found |= {inner + leaf: original(module, leaf) for leaf in dense_leaves(module)}
        buffers = module._buffers.items()
        found |= {inner + leaf: buffer for leaf, buffer in buffers if buffer is not None}
    return found
