"""What an operator rule sees: one executed operator, its arguments by name, its tensors' types.

A rule is a function ``rule(call) -> Dims | list[Dims | None]`` in a file of `rules/`, marked with
`@handles`. It unifies what the operator makes equal, pins or flags what it must, adds
multiply-accumulates, and returns the types of the outputs. A rule never guesses: where it cannot
tell it raises `NoRule`, and everything the operator touches is pinned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from secateur.graph.types import Dims, Product, fresh, fresh_all, size_of, unify

TYPE_ATTRIBUTE = "_secateur_dims"


class NoRule(Exception):
    """The rule does not cover this form of the operator."""


def dims_of(tensor: Tensor) -> Dims:
    """The types of a tensor's dimensions; a tensor first met here is a constant, and pinned."""
    dims: Dims | None = getattr(tensor, TYPE_ATTRIBUTE, None)
    if dims is None or len(dims) != tensor.dim():
        dims = fresh_all(tensor.shape, "a constant made outside the model's tensors")
        set_dims(tensor, dims)
    return dims


def set_dims(tensor: Tensor, dims: Dims) -> None:
    """Give a tensor its types."""
    setattr(tensor, TYPE_ATTRIBUTE, dims)


def typed(tensor: Any) -> bool:
    """Whether a tensor already has types for its present number of dimensions."""
    dims = getattr(tensor, TYPE_ATTRIBUTE, None)
    return dims is not None and len(dims) == tensor.dim()


def tensors_of(args: Iterable[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Every tensor among an operator's arguments, those in lists as well, in their order."""
    found: list[Tensor] = []
    _gather(args, found)
    if kwargs:
        _gather(kwargs.values(), found)
    return found


def _gather(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, (list, tuple)):
            _gather(item, found)


class OpCall:
    """One executed operator.

    name: without namespace and overload ("convolution"). out: what it returned. tensors: among its
    arguments, in their order. macs: terms that the rule adds, each a tuple of dimensions whose
    sizes are multiplied.
    """

    __slots__ = ("args", "func", "kwargs", "macs", "name", "out", "tensors")

    def __init__(
        self,
        func: torch._ops.OpOverload,
        args: Sequence[Any],
        kwargs: dict[str, Any],
        out: Any,
        tensors: list[Tensor] | None = None,
    ) -> None:
        self.func = func
        self.name = _name(func)
        self.tensors = tensors_of(args, kwargs) if tensors is None else tensors
        self.args = args
        self.kwargs = kwargs
        self.out = out
        self.macs: list[tuple[Product, ...]] = []

    def get(self, argument: str, default: Any = None) -> Any:
        """An argument by its schema name, or its schema default, or `default`."""
        if argument in self.kwargs:
            return self.kwargs[argument]
        position, schema_default = _schema(self.func).get(argument, (None, None))
        if position is not None and position < len(self.args):
            return self.args[position]
        return default if schema_default is None else schema_default

    def dims(self, argument: str) -> Dims:
        """Types of a tensor argument."""
        return dims_of(self.get(argument))

    @property
    def where(self) -> str:
        """How messages name this operator."""
        return self.name

    @property
    def first_out(self) -> Tensor:
        """The (first) output tensor."""
        first: Tensor = self.out[0] if isinstance(self.out, (tuple, list)) else self.out
        return first

    @property
    def returns_many(self) -> bool:
        """Whether the operator returns a tuple or list."""
        return isinstance(self.out, (tuple, list))


@cache
def _name(func: torch._ops.OpOverload) -> str:
    name: str = func._schema.name.rpartition("::")[2]
    return name


@cache
def _schema(func: torch._ops.OpOverload) -> dict[str, tuple[int | None, Any]]:
    table: dict[str, tuple[int | None, Any]] = {}
    for k, argument in enumerate(func._schema.arguments):
        default = argument.default_value if argument.has_default_value() else None
        table[argument.name] = (None if argument.kwarg_only else k, default)
    return table


Rule = Callable[[OpCall], "Dims | list[Dims | None]"]
_R = TypeVar("_R", bound=Rule)


def handles(*operators: str) -> Callable[[_R], _R]:
    """Mark a rule with the operators it covers, names without namespace."""

    def mark(rule: _R) -> _R:
        rule.operators = operators  # type: ignore[attr-defined]
        return rule

    return mark


def broadcast(dims: Sequence[Dims], shape: Sequence[int], where: str) -> Dims:
    """Types of the broadcast of several tensors to `shape`; equal dimensions are unified."""
    n = len(shape)
    out: list[Product] = [() for _ in range(n)]
    for one in dims:
        for k, product in enumerate(one, start=n - len(one)):
            if not product or size_of(product) == 1:
                continue
            if not out[k]:
                out[k] = product
            elif out[k] is not product:
                unify(out[k], product, where)
    return tuple(
        product if size_of(product) == size else fresh(size)
        for product, size in zip(out, shape, strict=True)
    )


def wrap(dim: int, n: int) -> int:
    """A dimension number in [0, n)."""
    return dim + n if dim < 0 else dim
