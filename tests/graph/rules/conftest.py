"""The law that every operator rule is held to, on small real tensors in float64.

An operator runs on typed random inputs. For each axis that its rule leaves free, some units are
removed from the inputs, sizes among the arguments are predicted from the types, and the operator
runs again. The outcome must equal that of the operator on inputs with those units zeroed, taken
at the units that remain: exactly for an axis without a flag, in shape for a flagged one, which
must differ in value, or the flag would be idle.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from secateur.core.dims import Dim, kept_indices, new_size
from secateur.graph.call import OpCall, dims_of, set_dims
from secateur.graph.dispatch import rule_for
from secateur.graph.freeze import Freezer
from secateur.graph.types import Atom, Dims, fresh_all, leaves, size_of

Shape = tuple[int, ...]
Arguments = Callable[..., Any]
"""``(*inputs)`` or, where `shapes` are given, ``(*inputs, shapes)`` -> positional arguments, or
``(positional, keyword)`` when it ends in a dict."""


@dataclass
class Checked:
    """How many axes were free, how many of those exact, and what the rule said of the rest."""

    free: int
    exact: int
    pins: set[str]
    flags: dict[str, str]
    macs: int


@dataclass
class Case:
    """One operator with its inputs; `shapes` are its outputs' where an argument repeats them."""

    op: torch._ops.OpOverload
    arguments: Arguments
    shapes: list[Shape] | None
    units: int

    def removed(self, size: int) -> set[int]:
        """The first `units` of an axis; by default the middle one, and the first of a long axis."""
        if self.units:
            return set(range(self.units))
        return {size // 2} | ({0} if size > 3 else set())

    def run(self, inputs: Sequence[Tensor], shapes: list[Shape] | None) -> OpCall:
        given = self.arguments(*inputs) if shapes is None else self.arguments(*inputs, shapes)
        args = given if isinstance(given, tuple) else (given,)
        kwargs = {}
        if args and isinstance(args[-1], dict):
            args, kwargs = args[:-1], args[-1]
        return OpCall(self.op, args, kwargs, self.op(*args, **kwargs))


def outputs(call: OpCall) -> list[Tensor]:
    return list(call.out) if call.returns_many else [call.out]


def take(tensor: Tensor, dims: Sequence[Dim], keep: dict[int, Tensor]) -> Tensor:
    for k, dim in enumerate(dims):
        tensor = tensor.index_select(k, kept_indices(dim, keep))
    return tensor


def zero(tensor: Tensor, dims: Sequence[Dim], keep: dict[int, Tensor]) -> Tensor:
    """A copy, zero where a unit is removed; positions and masks are left as they are."""
    if not tensor.is_floating_point():
        return tensor.clone()
    zeroed = tensor.clone()
    for k, dim in enumerate(dims):
        removed = torch.ones(tensor.shape[k], dtype=torch.bool)
        removed[kept_indices(dim, keep)] = False
        zeroed.index_fill_(k, removed.nonzero().flatten(), 0.0)
    return zeroed


def typed_copies(inputs: Sequence[Tensor]) -> list[Tensor]:
    copies = [tensor.clone() for tensor in inputs]
    for tensor in copies:
        set_dims(tensor, fresh_all(tensor.shape))
    return copies


def types_of_outputs(call: OpCall) -> list[Dims]:
    rule = rule_for(call.func)
    assert rule is not None, f"{call.func} has no rule"
    result = rule(call)
    answers = result if isinstance(result, list) else [result]
    assert len(answers) == len(outputs(call))
    types = [
        fresh_all(tensor.shape, "a by-product") if dims is None else dims
        for tensor, dims in zip(outputs(call), answers, strict=True)
    ]
    for tensor, dims in zip(outputs(call), types, strict=True):
        assert tuple(size_of(product) for product in dims) == tuple(tensor.shape)
    return types


def compare(case: Case, inputs: list[Tensor], types: list[Dims], out: list[Dims], atom: Atom):
    """Run with some units of one axis removed and with the same zeroed."""
    freezer = Freezer()
    frozen = [freezer.dims(dims) for dims in types]
    frozen_out = [freezer.dims(dims) for dims in out]
    kept = torch.tensor([u for u in range(atom.size) if u not in case.removed(atom.size)])
    keep = {freezer.axes[atom].index: kept}
    shapes = None
    if case.shapes is not None:
        counts = {freezer.axes[atom].index: len(kept)}
        shapes = [tuple(new_size(dim, counts) for dim in dims) for dims in frozen_out]
    pairs = list(zip(inputs, frozen, strict=True))
    cut = outputs(case.run([take(t, dims, keep).clone() for t, dims in pairs], shapes))
    masked = outputs(case.run([zero(t, dims, keep) for t, dims in pairs], case.shapes))
    expected = [take(t, dims, keep) for t, dims in zip(masked, frozen_out, strict=True)]
    assert [t.shape for t in cut] == [t.shape for t in expected]
    if not atom.flags:
        for a, b in zip(cut, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, equal_nan=True)
        return
    idle = all(torch.allclose(a, b) for a, b in zip(cut, expected, strict=True))
    assert not idle, f"zeroing equals removing, yet it is flagged: {atom.flags}"


def random_input(spec: Tensor | Shape, generator: torch.Generator) -> Tensor:
    if isinstance(spec, Tensor):
        return spec
    return torch.rand(spec, dtype=torch.float64, generator=generator) + 0.25


def hold(
    op: str,
    specs: Sequence[Tensor | Shape],
    arguments: Arguments | None = None,
    shapes: list[Shape] | None = None,
    *,
    units: int = 0,
    types_only: bool = False,
) -> Checked:
    """Check the law for one operator, ``name`` or ``name.overload``, on inputs of these shapes.

    units: how many to remove, for kernels that want multiples; types_only: for kernels that run on
    the one shape alone.
    """
    namespace, _, op = op.rpartition("::")
    name, _, overload = op.partition(".")
    func = getattr(getattr(getattr(torch.ops, namespace or "aten"), name), overload or "default")
    case = Case(func, arguments or (lambda *tensors: tensors), shapes, units)
    generator = torch.Generator().manual_seed(0)
    originals = [random_input(spec, generator) for spec in specs]
    typed = typed_copies(originals)
    types = [dims_of(tensor) for tensor in typed]
    call = case.run(typed, shapes)
    out = types_of_outputs(call)
    atoms = dict.fromkeys(
        atom for dims in (*types, *out) for product in dims for atom in leaves(product)
    )
    free = [atom for atom in atoms if atom.pin is None and atom.size > 1]
    for atom in [] if types_only else free:
        compare(case, originals, types, out, atom)
    flags = {kind: reason for atom in free for kind, reason in atom.flags.items()}
    pins = {atom.pin for atom in atoms if atom.pin is not None}
    exact = sum(not atom.flags for atom in free)
    macs = sum(torch.Size([size_of(p) for p in term]).numel() for term in call.macs)
    return Checked(len(free), exact, pins, flags, macs)


@pytest.fixture
def law() -> Callable[..., Checked]:
    return hold
