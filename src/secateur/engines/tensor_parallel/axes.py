"""Between a graph's frozen dimensions and the live types of another run of the same model."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.core.dims import Axis, Concat, Dim, Factor
from secateur.graph.types import Atom, Dims, Product, concat, parts_of, resolve


class LiveAxes:
    """One live atom for each axis of a graph; what the run finds besides gets negative numbers."""

    def __init__(self) -> None:
        self._atoms: dict[Axis, Atom] = {}
        self._axes: dict[Atom, Axis] = {}
        self._dims: dict[Product, Dim] = {}

    def thawed(self, dims: Sequence[Dim]) -> Dims:
        """Live types of a tensor of the graph."""
        return tuple(self._product(dim) for dim in dims)

    def _product(self, dim: Dim) -> Product:
        out: list[Atom] = []
        for factor in dim:
            if isinstance(factor, Concat):
                out += concat([self._product(part) for part in factor.parts])
            else:
                out.append(self._atoms.setdefault(factor, Atom(factor.size)))
        return tuple(out)

    def settle_(self) -> frozenset[int]:
        """After the run: number the atoms anew. Returns the axes that the run took apart or made
        one with another, of which nothing can be said."""
        lost: set[int] = set()
        for axis, atom in self._atoms.items():
            root = resolve((atom,))
            if len(root) != 1 or root[0].parts is not None:
                lost.add(axis.index)
            elif (other := self._axes.setdefault(root[0], axis)) != axis:
                lost |= {axis.index, other.index}
        return frozenset(lost)

    def dim(self, product: Product) -> Dim:
        """The frozen form of a live dimension."""
        product = resolve(product)
        known = self._dims.get(product)
        if known is None:
            known = self._dims[product] = tuple(self._factor(atom) for atom in product)
        return known

    def _factor(self, atom: Atom) -> Factor:
        if atom.parts is not None:
            return Concat(tuple(self.dim(part) for part in parts_of(atom)))
        return self._axes.setdefault(atom, Axis(-1 - len(self._axes), atom.size))
