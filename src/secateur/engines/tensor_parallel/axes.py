"""Between a graph's frozen dimensions and the live types of another run of the same model."""

from __future__ import annotations

from secateur.core.dims import Dim
from secateur.graph.thaw import Thawing
from secateur.graph.types import Product, resolve


class LiveAxes(Thawing):
    """Axes of a graph and of a run, which are matched once, after the run."""

    def __init__(self) -> None:
        super().__init__()
        self._dims: dict[Product, Dim] = {}

    def settle_(self) -> frozenset[int]:
        """After the run: number the atoms anew. Returns the axes that the run took apart or made
        one with another, of which nothing can be said."""
        lost: set[int] = set()
        roots = self.roots()
        for axis in self.atoms:
            root = roots.get(axis)
            if root is None or root.parts is not None:
                lost.add(axis.index)
            elif (other := self.axes.setdefault(root, axis)) != axis:
                lost |= {axis.index, other.index}
        return frozenset(lost)

    def dim(self, product: Product) -> Dim:
        """The frozen form of a live dimension, made once."""
        product = resolve(product)
        known = self._dims.get(product)
        if known is None:
            known = self._dims[product] = super().dim(product)
        return known
