"""From solved types to values: atoms become axes, notes become relations, axes become groups.

Nothing is inferred here any more. What the trace left open is decided: literals pin, scales flag,
tensors that no operator used are pinned, and relations that no removable axis can change are
dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from secateur.core.dims import Axis, Concat, Dim, Factor, axes_of
from secateur.core.expressions import (
    Binary,
    Expression,
    Field,
    Relation,
    Size,
    leaves,
)
from secateur.core.fingerprint import NamedModules
from secateur.core.graph import Group, Member, TensorType, Value
from secateur.graph.metadata import metadata
from secateur.graph.sized_ints import Ledger, LiveSize, Note
from secateur.graph.types import Atom, Dims, Product, flag, parts_of, pin, resolve, show

_TINY = 4
"""A factor with fewer units than this is part of a model's design, not of its width."""


class Freezing:
    """Makes values of live types; which axis an atom is, is said by those that are made of this."""

    def axis(self, atom: Atom) -> Axis:
        """The axis of an atom that is no concatenation."""
        raise NotImplementedError

    def dim(self, product: Product) -> Dim:
        """The frozen form of a product."""
        return tuple(self._factor(atom) for atom in resolve(product))

    def _factor(self, atom: Atom) -> Factor:
        if atom.parts is not None:
            return Concat(tuple(self.dim(part) for part in parts_of(atom)))
        return self.axis(atom)


class Freezer(Freezing):
    """Numbers free atoms as axes, in the order in which they are first asked for.

    values: what a trace's live values became, by `id`; the trace holds them.
    """

    def __init__(self) -> None:
        self.values: dict[int, Value] = {}
        self.axes: dict[Atom, Axis] = {}
        self._dims: dict[Product, Dim] = {}
        self._tensors: dict[Dims, tuple[Dim, ...]] = {}

    def dim(self, product: Product) -> Dim:
        """The frozen form of a product, made once."""
        product = resolve(product)
        known = self._dims.get(product)
        if known is None:
            known = self._dims[product] = super().dim(product)
        return known

    def dims(self, products: Dims) -> tuple[Dim, ...]:
        """The frozen form of a tensor's types."""
        known = self._tensors.get(products)
        if known is None:
            known = self._tensors[products] = tuple(self.dim(product) for product in products)
        return known

    def axis(self, atom: Atom) -> Axis:
        """The next number, for an atom that is asked for the first time."""
        axis = self.axes.get(atom)
        if axis is None:
            axis = self.axes[atom] = Axis(len(self.axes), atom.size)
        return axis

    def expression(self, expression: Any) -> Expression:
        """The frozen form of an expression."""
        if isinstance(expression, LiveSize):
            return Size(self.dim(expression.product))
        if isinstance(expression, Binary):
            left, right = self.expression(expression.left), self.expression(expression.right)
            return Binary(expression.op, left, right)
        assert isinstance(expression, (int, Field))
        return expression


def settle(ledger: Ledger, unused: Iterable[Dims]) -> None:
    """Turn what the trace noted into pins and flags on the types."""
    for dims in unused:
        for product in dims:
            pin(product, "no operator of the forward uses it")
    for product, where in ledger.literals:
        pin(product, f"the model's code has the literal size {show(product)} ({where})")
    typed = _typed_fields(ledger.notes)
    equal = _known_sizes(ledger.notes)
    for conversion in ledger.conversions:
        if conversion.folded:
            continue
        expression = conversion.expression
        reason = f"its size is used as a number ({conversion.where})"
        # `(width // heads) ** -0.5` changes with the head's width alone, where that is a dimension
        known = equal.get(_key(expression), None)
        products = [known] if known is not None else [*live_sizes(expression)]
        if known is None:
            products += [p for field in live_fields(expression) for p in typed.get(field, ())]
        for product in products:
            flag(product, "scaled", reason)


def _typed_fields(notes: Sequence[Note]) -> dict[Field, list[Product]]:
    """What each field is the size of; for one that is no size by itself, every size that it has a
    part in: `width // 2` was the size of something."""
    typed: dict[Field, list[Product]] = {}
    partly: dict[Field, list[Product]] = {}
    for note in notes:
        if note.op != "eq" or not note.holds:
            continue
        for side, other in ((note.left, note.right), (note.right, note.left)):
            for field in live_fields(side):
                found = typed if side is field else partly
                found.setdefault(field, []).extend(live_sizes(other))
    return {**partly, **typed}


def _known_sizes(notes: Sequence[Note]) -> dict[Any, Product]:
    """Composite expressions that are known to be the size of one dimension."""
    known: dict[Any, Product] = {}
    for note in notes:
        for composite, other in ((note.left, note.right), (note.right, note.left)):
            holds = note.op == "eq" and note.holds
            if holds and isinstance(composite, Binary) and isinstance(other, LiveSize):
                known.setdefault(_key(composite), other.product)
    return known


def _key(expression: Any) -> Any:
    """A hashable form in which equal dimensions are equal."""
    if isinstance(expression, LiveSize):
        return resolve(expression.product)
    if isinstance(expression, Binary):
        return expression.op, _key(expression.left), _key(expression.right)
    return expression


def live_sizes(expression: Any) -> Iterator[Product]:
    """Products whose sizes occur in a live expression."""
    if isinstance(expression, LiveSize):
        yield expression.product
    elif isinstance(expression, Binary):
        yield from live_sizes(expression.left)
        yield from live_sizes(expression.right)


def live_fields(expression: Any) -> Iterator[Field]:
    """Fields that occur in a live expression."""
    if isinstance(expression, Field):
        yield expression
    elif isinstance(expression, Binary):
        yield from live_fields(expression.left)
        yield from live_fields(expression.right)


def make_relations(
    freezer: Freezer,
    notes: Sequence[Note],
    modules: NamedModules,
    tensors: Mapping[str, TensorType],
    read: Mapping[Field, int],
) -> tuple[list[Relation], dict[Field, int]]:
    """Every relation of a trace and of the modules' metadata, each once, and the fields in them."""
    fields = dict(read)
    found: dict[tuple[str, Expression, Expression, bool], Relation] = {}

    def add(relation: Relation) -> None:
        key = (relation.op, relation.left, relation.right, relation.holds)
        if relation.left != relation.right:
            found.setdefault(key, relation)

    for note in notes:
        op, holds = (
            ("eq", True) if (note.op, note.holds) == ("ne", False) else (note.op, note.holds)
        )
        left, right = freezer.expression(note.left), freezer.expression(note.right)
        add(Relation(op, left, right, holds, note.where))
    owners: dict[str, dict[str, tuple[Dim, ...]]] = {}
    for name, tensor in tensors.items():
        for alias in (name, *tensor.aliases):
            owner, _, attribute = alias.rpartition(".")
            owners.setdefault(owner, {})[attribute] = tensor.dims
    for owner, module in modules:
        for relation, field, value in metadata(owner, module, owners.get(owner, {})):
            add(relation)
            fields[field] = value
            fields.update(
                (leaf, int(getattr(module, leaf.name)))
                for leaf in leaves(relation.right)
                if isinstance(leaf, Field)
            )
    return list(found.values()), fields


def relevant(relations: Sequence[Relation], free: set[int]) -> list[Relation]:
    """The relations that a removal from an axis in `free` can touch, directly or by a field."""
    axes: list[set[int]] = []
    fields: list[set[Field]] = []
    for relation in relations:
        both = [*leaves(relation.left), *leaves(relation.right)]
        axes.append({a.index for leaf in both if isinstance(leaf, Size) for a in axes_of(leaf.dim)})
        fields.append({leaf for leaf in both if isinstance(leaf, Field)})
    kept = {k for k, touched in enumerate(axes) if touched & free}
    reached = set().union(*(fields[k] for k in kept)) if kept else set()
    while True:
        more = {k for k, own in enumerate(fields) if k not in kept and own & reached}
        if not more:
            return [relation for k, relation in enumerate(relations) if k in kept]
        kept |= more
        reached |= set().union(*(fields[k] for k in more))


def make_groups(freezer: Freezer, tensors: Mapping[str, TensorType]) -> list[Group]:
    """One group for each axis of more than one unit that reaches a tensor."""
    atoms = {axis: atom for atom, axis in freezer.axes.items()}
    members: dict[Axis, list[Member]] = {}
    alone: set[Axis] = set()
    names: dict[Axis, str] = {}
    for name, tensor in tensors.items():
        for k, dim in enumerate(tensor.dims):
            axes = list(dict.fromkeys(axis for axis in axes_of(dim) if axis.size > 1))
            for position, axis in enumerate(axes):
                members.setdefault(axis, []).append(Member(name, k))
                suffix = f".{position}" if len(axes) > 1 else ""
                names.setdefault(axis, f"{name}[{k}]{suffix}")
            alone.update(_alone(dim))
    groups = []
    for axis, own in members.items():
        atom = atoms[axis]
        repeated = "repeated" in atom.flags
        kinds = {kind: why for kind, why in atom.flags.items() if kind != "repeated"}
        groups.append(
            Group(
                id=names[axis],
                axis=axis,
                members=tuple(own),
                flags=frozenset(kinds),
                notes=tuple(f"{kind}: {why}" for kind, why in sorted(kinds.items())),
                pinned=atom.pin or _only_buffers(own, tensors),
                structural=axis not in alone and (repeated or axis.size < _TINY),
            )
        )
    return groups


def _alone(dim: Dim) -> Iterator[Axis]:
    """The axes that are a dimension, or a part of a concatenation, by themselves."""
    if len(dim) == 1:
        (factor,) = dim
        if isinstance(factor, Axis):
            yield factor
        else:
            for part in factor.parts:
                yield from _alone(part)


def _only_buffers(members: Sequence[Member], tensors: Mapping[str, TensorType]) -> str | None:
    held = any(tensors[member.tensor].is_parameter for member in members)
    return None if held else "no parameter has it, only buffers"
