"""Numbers that a model makes of its sizes, and the weights that can absorb their change.

Attention divides by the square root of the head width. After a cut through that width the model's
own code computes another number; the query's weights, multiplied by the ratio, give the same
attention as before. A `Scale` says which weights do that, a `Fold` what a plan multiplies.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from secateur.core.dims import Counts
from secateur.core.expressions import Expression, Fields, evaluate


@dataclass(frozen=True, slots=True)
class Rows:
    """Some indices of one dimension of a tensor, as half-open ranges."""

    tensor: str
    dim: int
    ranges: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Scale:
    """A factor ``c * size**power`` of something that is linear in `weights`.

    number: which of the numbers that one forward makes of sizes, counted from 0.
    """

    expression: Expression
    power: float
    weights: tuple[Rows, ...]
    number: int


@dataclass(frozen=True, slots=True)
class Fold:
    """Rows of the dense model's tensor that a cut multiplies by `factor`."""

    rows: Rows
    factor: float


def folds_of(
    scales: Iterable[Scale], counts: Counts, before: Fields, after: Fields
) -> tuple[Fold, ...]:
    """What keeps every scale as it was, for these unit counts and fields before and after.

    >>> from secateur.core.expressions import Field
    >>> width = Field("attn", "head_dim")
    >>> scale = Scale(width, -0.5, (Rows("q.weight", 0, ((0, 8),)),), 0)
    >>> folds_of([scale], {}, {width: 8}, {width: 2})[0].factor
    0.5
    """
    found = []
    for scale in scales:
        dense = evaluate(scale.expression, {}, before)
        cut = evaluate(scale.expression, counts, after)
        if dense and cut and dense != cut:
            factor = (dense / cut) ** scale.power
            found += [Fold(rows, factor) for rows in scale.weights]
    return tuple(found)
