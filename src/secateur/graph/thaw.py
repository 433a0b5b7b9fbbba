"""A graph's frozen dimensions as live types again, for another run of the same model, and back."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.core.dims import Axis, Concat, Dim
from secateur.graph.freeze import Freezing
from secateur.graph.types import Atom, Dims, Product, concat, resolve


class Thawing(Freezing):
    """One live atom for each axis of a graph; what the run finds besides gets negative numbers."""

    def __init__(self) -> None:
        self.atoms: dict[Axis, Atom] = {}
        self.axes: dict[Atom, Axis] = {}

    def thawed(self, dims: Sequence[Dim]) -> Dims:
        """Live types of a tensor of the graph."""
        return tuple(self._product(dim) for dim in dims)

    def _product(self, dim: Dim) -> Product:
        out: list[Atom] = []
        for factor in dim:
            if isinstance(factor, Concat):
                out += concat([self._product(part) for part in factor.parts])
            else:
                out.append(self.atoms.setdefault(factor, Atom(factor.size)))
        return tuple(out)

    def roots(self) -> dict[Axis, Atom]:
        """What each axis's atom has come to be; without those that became several."""
        found = {axis: resolve((atom,)) for axis, atom in self.atoms.items()}
        return {axis: root[0] for axis, root in found.items() if len(root) == 1}

    def axis(self, atom: Atom) -> Axis:
        """That of the graph, or a negative one, which is none of the graph's."""
        return self.axes.setdefault(atom, Axis(-1 - len(self.axes), atom.size))
