"""Reads of integer attributes during a trace: `self.num_heads` comes back as a `SizedInt`.

In modules the attributes are exchanged for tagged ones; plain objects that hang on a module
(configurations, dataclasses) are covered by a patch of their classes. Both stand only while the
trace runs. An attribute that the forward reads more than once is the same `Field` each time, so
what becomes of it types it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.expressions import Field
from secateur.core.fingerprint import named_modules
from secateur.graph.sized_ints import Ledger

_LONGEST_LIST = 8
"""Longer lists of ints are data, not sizes."""
_SIZES = frozenset({int, tuple, list})
_ABSENT = object()
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
    """Tag integer attributes while the block runs; yields every field that can be read, and its
    value."""
    values: dict[Field, int] = {}
    holders = dict(_holders(model))

    def tag(owner: str, name: str, value: Any) -> Any:
        if type(value) is int:
            if value <= 1:
                return value
            values[field := Field(owner, name)] = value
            return ledger.tag(value, field)
        if not _is_sizes(value):
            return value
        fields = [Field(owner, name, k) for k in range(len(value))]
        values.update((f, v) for f, v in zip(fields, value, strict=True) if v > 1)
        return type(value)(ledger.tag(v, f) for f, v in zip(fields, value, strict=True))

    with _patched_holders(holders, tag), _exchanged(model, tag):
        yield values


def _is_sizes(value: Any) -> bool:
    """Whether a value is a short list of whole numbers, not all of them 0 or 1."""
    return (
        type(value) in (tuple, list)
        and 0 < len(value) <= _LONGEST_LIST
        and all(type(item) is int for item in value)
        and max(value) > 1
    )


@contextmanager
def _exchanged(model: nn.Module, tag: Callable[[str, str, Any], Any]) -> Iterator[None]:
    """Sizes in modules' attributes exchanged for tagged ones; a class's own are shadowed.

    Reads then cost what they always do, where a patched `__getattribute__` would see every read
    of every module. What the forward itself assigns stays as it is.
    """
    exchanged: list[tuple[dict[str, Any], str, Any, Any]] = []
    for owner, module in named_modules(model):
        own, kind = vars(module), type(module)  # type: dict[str, Any], Any
        found = [item for item in own.items() if type(item[1]) in _SIZES and item[0][0] != "_"]
        for name, value in (*found, *_of_class(kind)):
            tagged = tag(owner, name, value)
            if tagged is not value and (value is own.get(name) or name not in own):
                exchanged.append((own, name, own.get(name, _ABSENT), tagged))
                own[name] = tagged
    try:
        yield
    finally:
        for own, name, value, tagged in exchanged:
            if own.get(name) is tagged:
                own.pop(name) if value is _ABSENT else own.update({name: value})


@cache
def _of_class(kind: Any) -> tuple[tuple[str, Any], ...]:
    """Sizes that a module class keeps for all of its instances."""
    classes = [base for base in kind.__mro__ if base not in nn.Module.__mro__]
    found = {name: value for base in reversed(classes) for name, value in vars(base).items()}
    return tuple(
        (name, value)
        for name, value in found.items()
        if name[0] != "_" and (type(value) is int or _is_sizes(value))
    )


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
