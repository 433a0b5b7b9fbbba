"""The same place of the cut and the dense model, on one batch: what each makes there, and what the
cut layer should make.

That is the dense layer's outputs; where they are added to a stream, also what the cut model's
stream lacks by then, so that what was lost before is made up for as far as this layer can.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from secateur.criteria.contractions import Scaling, Use
from secateur.oneshot.places import Place
from secateur.oneshot.streams import Beside, laid_as
from secateur.oneshot.walk import Walk

Event = Use | Scaling


@dataclass(frozen=True)
class Pair:
    """number: of the batch. stream: what is added to what each makes, in the cut and the dense
    model; beside: what is known of that."""

    number: int
    cut: Event | None
    dense: Event | None
    stream: tuple[Tensor, Tensor] | None = None
    beside: tuple[Beside, Beside] | None = None

    def lacking(self, indices_M: Int64[Tensor, " outputs"], dim: int) -> Tensor | None:
        """What the cut layer's outputs should have besides the dense layer's.

        indices_M: the dense layer's outputs that are left, along `dim`.
        """
        if self.stream is None or self.beside is None or self.cut is None or self.dense is None:
            return None
        made = self.cut.made, self.dense.made
        if any(one.numel() != all_.numel() for one, all_ in zip(self.stream, made, strict=True)):
            return None
        cut, dense = (
            laid_as(values, one, beside.order)
            for values, one, beside in zip(self.stream, made, self.beside, strict=True)
        )
        lost = dense.index_select(dim, indices_M.to(dense.device)) - cut
        slopes_M = self.beside[0].slopes_M.to(lost)
        per_output = slopes_M.reciprocal().nan_to_num(0.0, 0.0, 0.0)
        along = [1] * lost.dim()
        along[dim] = -1
        return lost * per_output.reshape(along)


def pair_at(
    walks: tuple[Walk, Walk],
    places: tuple[Place, Place],
    number: int,
    beside: tuple[Beside, Beside] | None,
) -> Pair:
    """Go on to a place in both models; beside: what is added there."""
    cut, dense = (walk.at(place) for walk, place in zip(walks, places, strict=True))
    streams = [walk.beside(place) for walk, place in zip(walks, places, strict=True)]
    if beside is None or streams[0] is None or streams[1] is None:
        return Pair(number, cut, dense)
    return Pair(number, cut, dense, (streams[0], streams[1]), beside)
