"""Types of tensor dimensions while they are being inferred, and their unification.

A dimension's type is a product: a row-major tuple of atoms, size-1 factors dropped, so `()` is a
dimension of size 1. An atom is free, bound to another product (`bound`), or a concatenation of
products (`parts`). Operator rules state which dimensions are equal; `unify` makes them so by
binding and splitting atoms. Sizes strictly fall at each bind, so no occurs check is needed.
`freeze.py` turns the solved types into the immutable `core.dims`.

Source: first-order unification by substitution, Robinson 1965, J. ACM 12(1), over products of
sizes; the concatenation and the irregular split are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class Atom:
    """One factor of a product. Identity matters, so it is a plain mutable class.

    pin: why its units must stay; flags: why removing a unit differs from zeroing it, by kind
    ("renormalised", "scaled").
    """

    __slots__ = ("bound", "flags", "parts", "pin", "size")

    def __init__(self, size: int, pin: str | None = None) -> None:
        self.size = size
        self.pin = pin
        self.flags: dict[str, str] = {}
        self.bound: Product | None = None
        self.parts: list[Product] | None = None

    def __repr__(self) -> str:
        return show((self,))


Product = tuple[Atom, ...]
Dims = tuple[Product, ...]
"""One product for each dimension of a tensor."""


class SizeMismatch(Exception):
    """Two dimensions of different sizes were declared equal: a rule is wrong for this call."""


def fresh(size: int, pin: str | None = None) -> Product:
    """A new dimension of one atom; `()` for size 1."""
    return () if size == 1 else (Atom(size, pin),)


def fresh_all(shape: Iterable[int], pin: str | None = None) -> Dims:
    """A new dimension for each size of a shape."""
    return tuple(fresh(int(size), pin) for size in shape)


def resolve(product: Product) -> Product:
    """The product with bound atoms replaced, paths compressed."""
    for atom in product:
        if atom.bound is not None:
            break
    else:
        return product
    out: list[Atom] = []
    for atom in product:
        if atom.bound is None:
            out.append(atom)
        else:
            atom.bound = resolve(atom.bound)
            out.extend(atom.bound)
    return tuple(out)


def size_of(product: Product) -> int:
    """Number of indices."""
    size = 1
    for atom in product:
        size *= atom.size
    return size


def parts_of(atom: Atom) -> list[Product]:
    """The parts of a concatenation, resolved, nested concatenations flattened."""
    assert atom.parts is not None
    for part in atom.parts:
        if any(own.bound is not None for own in part) or (len(part) == 1 and part[0].parts):
            break
    else:
        return atom.parts
    out: list[Product] = []
    for part in atom.parts:
        product = resolve(part)
        if len(product) == 1 and product[0].parts is not None:
            out.extend(parts_of(product[0]))
        else:
            out.append(product)
    atom.parts = out
    return out


def concat(parts: Iterable[Product | None]) -> Product:
    """The concatenation of dimensions; None and empty parts are dropped."""
    out: list[Product] = []
    for part in parts:
        if part is None:
            continue
        product = resolve(part)
        if size_of(product) == 0:
            continue
        if len(product) == 1 and product[0].parts is not None:
            out.extend(parts_of(product[0]))
        else:
            out.append(product)
    if not out:
        return (Atom(0),)
    if len(out) == 1:
        return out[0]
    atom = Atom(sum(size_of(product) for product in out))
    atom.parts = out
    return (atom,)


def leaves(product: Product) -> list[Atom]:
    """Every free atom of a dimension, with repetitions."""
    found: list[Atom] = []
    for atom in resolve(product):
        if atom.parts is None:
            found.append(atom)
        else:
            for part in parts_of(atom):
                found += leaves(part)
    return found


def pin(product: Product, reason: str) -> None:
    """Forbid removal from every free atom; the first reason stays."""
    for atom in leaves(product):
        if atom.pin is None:
            atom.pin = reason


def flag(product: Product, kind: str, reason: str) -> None:
    """Mark that removing differs from zeroing; the first reason of a kind stays."""
    for atom in leaves(product):
        atom.flags.setdefault(kind, reason)


def split(product: Product, offset: int) -> tuple[Product | None, Product | None]:
    """Cut a dimension at a flat offset into two, exactly; None for an empty side.

    ``A x R`` cut at ``i * |R| + r`` is the concatenation of ``A[:i] x R`` and ``R[:r]`` on the
    left, ``R[r:]`` and ``A[i+1:] x R`` on the right.
    """
    product = resolve(product)
    total = size_of(product)
    if offset <= 0:
        return None, product
    if offset >= total:
        return product, None
    head, rest = product[0], product[1:]
    inner = total // head.size
    if offset % inner == 0:
        left, right = _split_atom(head, offset // inner)
        return (
            None if left is None else left + rest,
            None if right is None else right + rest,
        )
    i, r = divmod(offset, inner)
    rest_left, rest_right = split(rest, r)
    rest = resolve(rest)
    before, remaining = _split_atom(head, i)
    assert remaining is not None
    _, after = split(remaining, 1)
    left = concat([None if before is None else before + rest, rest_left])
    right = concat([rest_right, None if after is None else after + rest])
    return left, right


def _split_atom(atom: Atom, offset: int) -> tuple[Product | None, Product | None]:
    if atom.bound is not None:
        return split((atom,), offset)
    if offset <= 0:
        return None, (atom,)
    if offset >= atom.size:
        return (atom,), None
    if atom.parts is None:
        left, right = fresh(offset, atom.pin), fresh(atom.size - offset, atom.pin)
        for piece in left + right:
            piece.flags = dict(atom.flags)
        atom.parts = [left, right]
        return left, right
    parts, start = parts_of(atom), 0
    for k, part in enumerate(parts):
        size = size_of(part)
        if offset == start:
            return concat(parts[:k]), concat(parts[k:])
        if start < offset < start + size:
            left_part, right_part = split(part, offset - start)
            return concat([*parts[:k], left_part]), concat([right_part, *parts[k + 1 :]])
        start += size
    raise AssertionError("offset lies inside the atom")


def split_sizes(product: Product, sizes: Sequence[int]) -> list[Product]:
    """Cut a dimension into pieces of these sizes, which add up to its size."""
    out: list[Product] = []
    rest: Product | None = product
    for size in sizes:
        if size == 0 or rest is None:
            out.append((Atom(0),))
            continue
        left, rest = split(rest, size)
        assert left is not None
        out.append(left)
    return out


def unify(first: Product, second: Product, where: str) -> None:
    """Make two dimensions equal.

    Where their inner sizes have no common refinement both are pinned, with `where` as reason.
    Raises: SizeMismatch when the sizes differ.
    """
    first, second = resolve(first), resolve(second)
    if first == second:
        return
    if size_of(first) != size_of(second):
        raise SizeMismatch(f"{show(first)} against {show(second)} in {where}")
    left, right = list(first), list(second)
    while left and right:
        p, q = left[-1], right[-1]
        if p is q:
            left.pop()
            right.pop()
            continue
        if p.size == q.size:
            left.pop()
            right.pop()
            _unify_atoms(p, q, where)
        else:
            if p.size < q.size:
                left, right, p, q = right, left, q, p
            if p.parts is not None:
                fits = _unify_parts(left, right, where)
            elif p.size % q.size == 0:
                _bind(p, (*fresh(p.size // q.size), q))
                fits = True
            else:
                fits = False
            if not fits:
                _pin_misfit(left, right, where)
                return
        left, right = list(resolve(tuple(left))), list(resolve(tuple(right)))


def _pin_misfit(left: Sequence[Atom], right: Sequence[Atom], where: str) -> None:
    reason = (
        f"the sizes {show(tuple(left))} and {show(tuple(right))} share no common factoring "
        f"in {where}"
    )
    pin(tuple(left), reason)
    pin(tuple(right), reason)


def _bind(atom: Atom, product: Product) -> None:
    atom.bound = product
    if atom.pin is not None:
        pin(product, atom.pin)
    for kind, reason in atom.flags.items():
        flag(product, kind, reason)


def _unify_parts(left: list[Atom], right: list[Atom], where: str) -> bool:
    """Unify the concatenation at the end of `left` with as much of the end of `right`.

    Takes what it unified from both lists. Returns False when the sizes have no common factoring.
    """
    p = left[-1]
    inner, j = 1, len(right)
    while inner < p.size and j > 0:
        j -= 1
        inner *= right[j].size
    if inner != p.size:
        return _refine_outermost(right[j], p.size, inner)
    taken = tuple(right[j:])
    left.pop()
    del right[j:]
    rest: Product | None = taken
    for part in list(parts_of(p)):
        assert rest is not None
        piece, rest = split(rest, size_of(part))
        assert piece is not None
        unify(part, piece, where)
    taken = resolve(taken)
    if resolve((p,)) == (p,) and p not in taken:
        p.bound = taken
    return True


def _refine_outermost(atom: Atom, wanted: int, reached: int) -> bool:
    """Factor `atom`, the outermost of a trailing product of size `reached`, so that a trailing
    product of size `wanted` exists: ``atom = (atom / k) x k`` with ``k * inner == wanted``."""
    inner = reached // atom.size
    if reached % wanted or wanted % inner:
        return False
    k = wanted // inner
    if atom.size % k:
        return False
    if atom.parts is None:
        _bind(atom, fresh(atom.size // k) + fresh(k))
        return True
    parts = parts_of(atom)
    if any(size_of(part) % k for part in parts):
        return False
    common, outers = fresh(k), []
    for part in parts:
        outer = fresh(size_of(part) // k)
        unify(part, outer + common, "a concatenation of equal factors")
        outers.append(outer)
    if atom.bound is None:
        atom.bound = concat(outers) + common
    return True


def _unify_atoms(p: Atom, q: Atom, where: str) -> None:
    if p.parts is None:
        _bind(p, (q,))
        return
    if q.parts is None:
        _bind(q, (p,))
        return
    left, right = list(parts_of(p))[::-1], list(parts_of(q))[::-1]
    while left and right:
        s, t = left.pop(), right.pop()
        size_s, size_t = size_of(s), size_of(t)
        if size_s > size_t:
            piece, rest = split(s, size_t)
            assert piece is not None and rest is not None
            left.append(rest)
            s = piece
        elif size_t > size_s:
            piece, rest = split(t, size_s)
            assert piece is not None and rest is not None
            right.append(rest)
            t = piece
        unify(s, t, where)
    if resolve((p,)) == (p,) and resolve((q,)) == (q,) and p is not q:
        p.bound = (q,)


def leading(product: Product, size: int) -> Product | None:
    """The leading factors whose product is `size`, or None when no prefix has that size."""
    product, reached = resolve(product), 1
    for k, atom in enumerate(product):
        if reached == size:
            return product[:k]
        reached *= atom.size
    return product if reached == size else None


def show(product: Product) -> str:
    """Readable form: `3x[4|5]`."""
    product = resolve(product)
    if not product:
        return "1"
    return "x".join(
        str(atom.size)
        if atom.parts is None
        else "[" + "|".join(show(part) for part in parts_of(atom)) + "]"
        for atom in product
    )
