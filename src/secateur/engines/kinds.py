"""What `parallel` says: one kind for all ranks, or how many ranks stand along each of two.

`ddp`, `fsdp`, `tp`, `none` are for all ranks. `dp=2,tp=2` and `fsdp=2,tp=2` are products in the
words of a mesh: neighbours share the model out, and the sets of them share the batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secateur.core.lookup import find, names
from secateur.core.world import World
from secateur.engines.mesh import parse_mesh
from secateur.engines.training import Parallel

KINDS = "secateur.engines.parallel"
TENSOR = "tp"


@dataclass(frozen=True, slots=True)
class Kind:
    """outer: a file of `engines.parallel`. tensor: how many ranks share the model out within; None
    for a kind that all ranks are of."""

    outer: str
    tensor: int | None = None

    def make(self, world: World, **about: Any) -> Parallel:
        """How the ranks of a world share a training; about: see `engines.parallel`."""
        name = self.outer
        if self.tensor is not None:
            name, about = TENSOR, {**about, "size": self.tensor, "outer": self.outer}
        parallel: Parallel = find(KINDS, name, kind="parallel").make(world, **about)
        return parallel


def parse_kind(text: str, *, ranks: int | None = None) -> Kind:
    """The kind that a text names. ranks: how many there are, where that is known.

    >>> parse_kind("fsdp"), parse_kind("fsdp=2,tp=2", ranks=4)
    (Kind(outer='fsdp', tensor=None), Kind(outer='fsdp', tensor=2))
    >>> parse_kind("dp,tp=2", ranks=8), parse_kind("tp=4", ranks=4)
    (Kind(outer='ddp', tensor=2), Kind(outer='tp', tensor=None))

    Raises: ValueError for other words, and for a product that is not `ranks`.
    """
    if not {"=", ","} & set(text):
        if text not in names(KINDS):  # what is known is imported by those who make it alone
            find(KINDS, text, kind="parallel")
        return Kind(text)
    mesh = parse_mesh(text, ranks=ranks)
    if mesh.dp > 1 and mesh.fsdp > 1:
        raise ValueError(
            f"parallel {text!r}: copies of shards can be simulated and not trained by; shard over "
            f"all of them, fsdp={mesh.dp * mesh.fsdp}{f',tp={mesh.tp}' if mesh.tp > 1 else ''}"
        )
    outer = "fsdp" if "fsdp" in text and mesh.dp == 1 else "ddp"
    if mesh.tp == 1:
        return Kind(outer)
    return Kind(outer, mesh.tp) if mesh.batches > 1 else Kind(TENSOR)
