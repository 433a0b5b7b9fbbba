"""Reads of integer attributes during a trace: `self.num_heads` comes back as a `SizedInt`.

Modules, and plain objects that hang on one (configurations, dataclasses), are covered by a patch of
their classes; in torch's own modules the attributes themselves are exchanged. Both stand only while
the trace runs. An attribute that the forward reads more than once is the same `Field` each time, so
what becomes of it types it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.expressions import Field
from secateur.core.fingerprint import NamedModules
from secateur.graph.sized_ints import Ledger

_LONGEST_LIST = 8
"""Longer lists of ints are data, not sizes."""
_SIZES = frozenset({int, tuple, list})
_OF_KERNELS = frozenset("kernel_size stride padding dilation output_padding".split())
"""Of torch's own modules; what they count is no dimension of a weight that units are taken from."""
Tag = Callable[[str, str, Any], Any]
"""From an owner's path, an attribute and its value to the tagged value."""
_NOT_HOLDERS = (
    nn.Module,
    Tensor,
    torch.device,
    torch.dtype,
    torch.Size,
    type,
    enum.Enum,
    FunctionType,
    MethodType,
    ModuleType,
)
_MADE_IN_PYTHON = 1 << 9
"""The flag of a class whose reads can be patched."""
_FOREIGN = ("builtins", "torch.", "torch", "numpy", "collections", "functools", "typing", "_thread")


@contextmanager
def tagged_reads(named: NamedModules, ledger: Ledger) -> Iterator[dict[Field, int]]:
    """Tag integer attributes while the block runs; yields every field that was read (of torch's
    own modules every one that can be), and its value."""
    read: dict[Field, int] = {}

    def tag(owner: str, name: str, value: Any) -> Any:
        if type(value) is int:
            if value <= 1:
                return value
            read[field := Field(owner, name)] = value
            return ledger.tag(value, field)
        if not 0 < len(value) <= _LONGEST_LIST:
            return value
        if not all(type(item) is int for item in value) or max(value) <= 1:
            return value
        fields = [Field(owner, name, k) for k in range(len(value))]
        read.update((f, v) for f, v in zip(fields, value, strict=True) if v > 1)
        return type(value)(ledger.tag(v, f) for f, v in zip(fields, value, strict=True))

    modules = {id(m): (m, path) for path, m in reversed(named)}
    own = [item for item in modules.values() if type(item[0]).__module__.startswith("torch.")]
    for module, _ in own:
        del modules[id(module)]
    holders = {id(module): (module, path, "") for module, path in modules.values()}
    holders.update(_holders(named))
    with _patched(holders, tag), _exchanged(own, tag):
        yield read


@contextmanager
def _exchanged(modules: Iterable[tuple[nn.Module, str]], tag: Tag) -> Iterator[None]:
    """Sizes in attributes exchanged for tagged ones: reads then cost what they always do.

    For torch's own modules, which are many and read much; their forwards assign none of them.
    """
    exchanged: list[tuple[dict[str, Any], str, Any]] = []
    for module, path in modules:
        own = vars(module)
        found = [item for item in own.items() if type(item[1]) in _SIZES and item[0][0] != "_"]
        for name, value in found:
            if name in _OF_KERNELS:
                continue
            tagged = tag(path, name, value)
            if tagged is not value:
                exchanged.append((own, name, value))
                own[name] = tagged
    try:
        yield
    finally:
        for own, name, value in exchanged:
            own[name] = value


def _holders(named: NamedModules) -> Iterator[tuple[int, tuple[Any, str, str]]]:
    """Plain objects on modules that may hold sizes: id -> (object, owner path, dotted name)."""
    seen: set[int] = set()
    for owner, module in named:
        for name, value in vars(module).items():
            if type(value).__flags__ & _MADE_IN_PYTHON:
                yield from _holder(owner, name, value, seen)


def _holder(
    owner: str, name: str, value: Any, seen: set[int]
) -> Iterator[tuple[int, tuple[Any, str, str]]]:
    kind = type(value)
    if id(value) in seen or isinstance(value, _NOT_HOLDERS) or not kind.__flags__ & _MADE_IN_PYTHON:
        return
    if kind.__module__.startswith(_FOREIGN) or not isinstance(getattr(value, "__dict__", 0), dict):
        return
    seen.add(id(value))
    yield id(value), (value, owner, f"{name}.")
    for inner_name, inner in vars(value).items():
        if name.count(".") < 2:
            yield from _holder(owner, f"{name}.{inner_name}", inner, seen)


@contextmanager
def _patched(holders: dict[int, tuple[Any, str, str]], tag: Tag) -> Iterator[None]:
    """Reads of these objects' integers tagged, by a patch of their classes."""
    patched: list[tuple[type, Any]] = []
    for kind in dict.fromkeys(type(value) for value, _, _ in holders.values()):
        own = kind.__dict__.get("__getattribute__")
        inherited = kind.__getattribute__

        def read_holder(self: Any, name: str, inherited: Any = inherited) -> Any:
            value = inherited(self, name)
            if name[0] == "_" or type(value) not in _SIZES:
                return value
            known = holders.get(id(self))
            return value if known is None else tag(known[1], f"{known[2]}{name}", value)

        try:
            kind.__getattribute__ = read_holder  # type: ignore[assignment]
        except (TypeError, AttributeError):
            continue  # a class that refuses to be patched: its integers stay plain, so literals
        patched.append((kind, own))
    try:
        yield
    finally:
        for kind, own in reversed(patched):
            if own is None:
                del kind.__getattribute__
            else:
                kind.__getattribute__ = own
