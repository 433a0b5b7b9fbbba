"""A model that a trace may run and spoil: weights on the meta device, everything put back after.

Forwards leave caches behind in plain attributes, so every module's `__dict__` is remembered, with
a shallow copy of the dicts and lists in it, and restored whatever happens.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.fingerprint import NamedModules

_REGISTRIES = ("_parameters", "_buffers", "_modules")


@dataclass
class Leaf:
    """A parameter or buffer: its names, canonical first, and the tensor that stands in for it."""

    original: Tensor
    stand_in: Tensor
    is_parameter: bool
    names: list[str] = field(default_factory=list)
    persistent: bool = True


def empty_like_on_meta(tensor: Tensor) -> Tensor:
    """A meta tensor with the shape, strides and dtype of `tensor`."""
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")


@contextmanager
def restored(modules: NamedModules) -> Iterator[None]:
    """Undo everything that the block does to modules' attributes and training flags."""
    saved, empty, filled = [], list[Any](), list[tuple[Any, Any]]()
    tensors: list[Tensor] = []
    for _, module in modules:
        attributes = dict(module.__dict__)
        saved.append((module, attributes))
        for value in attributes.values():
            kind = type(value)
            if kind in _CONTAINERS:
                if value:
                    filled.append((value, value.copy()))
                else:  # a module has a dozen of them, for hooks
                    empty.append(value)
            elif kind not in _PLAIN and isinstance(value, Tensor):
                tensors.append(value)
    try:
        yield
    finally:
        for module, attributes in saved:
            module.__dict__.clear()
            module.__dict__.update(attributes)
        for tensor in tensors:
            _forget_types_(tensor)
        for container in empty:
            if container:
                container.clear()
        for container, content in filled:
            container.clear()
            if type(container) is list:
                container.extend(content)
            else:
                container.update(content)


_CONTAINERS = frozenset({dict, list, collections.OrderedDict, set})
_PLAIN = frozenset({bool, int, float, str, tuple, type(None)})


def _forget_types_(tensor: Tensor) -> None:
    """Take from a tensor that is a plain attribute what a trace wrote on it."""
    for name in [name for name in vars(tensor) if name.startswith("_secateur")]:
        delattr(tensor, name)


def leaves_of(modules: NamedModules, *, meta: bool) -> dict[int, Leaf]:
    """Every distinct parameter and buffer by `id`, parameters first, in the modules' order.

    modules: shared ones under each path, for the names.
    """
    found: dict[int, Leaf] = {}
    for registry in ("_parameters", "_buffers"):
        for path, module in modules:
            for name, tensor in getattr(module, registry).items():
                if tensor is None:
                    continue
                leaf = found.get(id(tensor))
                if leaf is None:
                    leaf = Leaf(tensor, _stand_in(tensor, meta), registry == "_parameters")
                    leaf.persistent = name not in module._non_persistent_buffers_set
                    found[id(tensor)] = leaf
                leaf.names.append(f"{path}.{name}" if path else name)
    return found


def _stand_in(tensor: Tensor, meta: bool) -> Tensor:
    if not meta or tensor.is_meta:
        return tensor.detach()
    if not tensor.is_floating_point() and not tensor.is_complex():
        # integer buffers keep their values: index tables and masks are read by the forward
        return tensor.detach().clone()
    stand_in = empty_like_on_meta(tensor)
    if type(tensor) is nn.Parameter or isinstance(tensor, nn.Parameter):
        return torch.Tensor._make_subclass(nn.Parameter, stand_in, False)
    return stand_in


def swap_in(modules: NamedModules, leaves: Mapping[int, Leaf]) -> None:
    """Put the stand-ins into the modules; `restored` takes them out again."""
    for _, module in modules:
        for registry in ("_parameters", "_buffers"):
            table = getattr(module, registry)
            for name, tensor in table.items():
                if tensor is not None:
                    table[name] = leaves[id(tensor)].stand_in
        flat = module.__dict__.get("_flat_weights")
        if isinstance(flat, list):
            module.__dict__["_flat_weights"] = [
                leaves[id(tensor)].stand_in if id(tensor) in leaves else tensor for tensor in flat
            ]


def evaluate_(modules: NamedModules) -> None:
    """Put the modules in evaluation mode, the first by its own method where any has one."""
    kinds = {type(module) for _, module in modules}
    if any(k.train is not nn.Module.train or k.eval is not nn.Module.eval for k in kinds):
        modules[0][1].eval()
        return
    for _, module in modules:
        module.__dict__["training"] = False  # `nn.Module.__setattr__` looks at much first


def on_meta(value: Any) -> Any:
    """An input for the trace: floats on meta, everything else a copy with its values."""
    if not isinstance(value, Tensor):
        return value
    if value.is_floating_point() or value.is_complex():
        return empty_like_on_meta(value)
    return value.clone()
