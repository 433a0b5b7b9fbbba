"""Reads of integer attributes during a trace: `self.num_heads` comes back as a `SizedInt`.

Modules are covered by one patch of `nn.Module.__getattribute__`; plain objects that hang on a
module (configurations, dataclasses) by a patch of their classes. The patches stand only while the
trace runs. An attribute that the forward reads more than once is the same `Field` each time, so
what becomes of it types it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.expressions import Field
from secateur.core.fingerprint import named_modules
from secateur.graph.sized_ints import Ledger

_LONGEST_LIST = 8
"""Longer lists of ints are data, not sizes."""
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
def tagged_reads(model: nn.Module, ledger: Ledger) -> Iterator[dict[Field, int]]:
    """Tag integer attributes while the block runs; yields every field that was read, and its
    value."""
    read: dict[Field, int] = {}
    owners = {id(module): name for name, module in reversed(named_modules(model))}
    holders = dict(_holders(model))

    def tag(owner: str, name: str, value: Any) -> Any:
        kind = type(value)
        if kind is int:
            if value <= 1:
                return value
            read[field := Field(owner, name)] = value
            return ledger.tag(value, field)
        if kind in (tuple, list) and 0 < len(value) <= _LONGEST_LIST:
            if not all(type(item) is int for item in value) or max(value) <= 1:
                return value
            fields = [Field(owner, name, k) for k in range(len(value))]
            read.update((f, v) for f, v in zip(fields, value, strict=True) if v > 1)
            return kind(ledger.tag(v, f) for f, v in zip(fields, value, strict=True))
        return value

    plain: Any = object.__getattribute__

    def read_module(self: Any, name: str) -> Any:
        value = plain(self, name)
        if name[0] == "_" or type(value) not in (int, tuple, list):
            return value
        owner = owners.get(id(self))
        return value if owner is None or name == "training" else tag(owner, name, value)

    with _patched_holders(holders, tag):
        nn.Module.__getattribute__ = read_module  # type: ignore[method-assign]
        try:
            yield read
        finally:
            del nn.Module.__getattribute__


def _holders(model: nn.Module) -> Iterator[tuple[int, tuple[Any, str, str]]]:
    """Plain objects on modules that may hold sizes: id -> (object, owner path, dotted name)."""
    seen: set[int] = set()
    for owner, module in named_modules(model):
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
    yield id(value), (value, owner, name)
    for inner_name, inner in vars(value).items():
        if name.count(".") < 2:
            yield from _holder(owner, f"{name}.{inner_name}", inner, seen)


@contextmanager
def _patched_holders(holders: dict[int, tuple[Any, str, str]], tag: Any) -> Iterator[None]:
    patched: list[tuple[type, Any]] = []
    for kind in dict.fromkeys(type(value) for value, _, _ in holders.values()):
        own = kind.__dict__.get("__getattribute__")
        inherited = kind.__getattribute__

        def read_holder(self: Any, name: str, inherited: Any = inherited) -> Any:
            value = inherited(self, name)
            if name[0] == "_" or type(value) not in (int, tuple, list):
                return value
            known = holders.get(id(self))
            return value if known is None else tag(known[1], f"{known[2]}.{name}", value)

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
