"""Second moments of what weights read, over calibration data, for criteria of the next layers.

They are as large as the square of a layer's inputs, so the data is run several times where those
of all layers would not fit into `BYTES` together. Layers that read one tensor share one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.errors import ScoreError
from secateur.core.world import ALONE, World
from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.patches import rows_of
from secateur.criteria.running import run_batches
from secateur.criteria.shares import first_of, repeatable
from secateur.criteria.sound import finite

BYTES = 1 << 31
"""Memory for moments at a time."""
_BINS = 2
"""Of sums of a moment's products, which are at least as exact as float64 for what they are for."""
POSITIONS = 1 << 13
"""Positions of a batch that are looked at, about: neighbours in an image say much the same."""
Part = tuple[str, int, tuple[int, ...], tuple[int, ...]]
"""A parameter, or a part of it: name, where it starts, shape and strides."""


@dataclass
class Moment:
    """How a part of a weight was used, without its tensors of values, ``sum of x x^T``, and over
    how many positions."""

    use: Use
    square_GFF: Tensor
    positions: int


def input_moments(
    model: nn.Module, data: Iterable[Any], wanted: Callable[[Use], bool], *, world: World = ALONE
) -> Iterator[list[Moment]]:
    """Moments of what the wanted weights read, over all ranks' batches, as many at a time as fit
    into `BYTES`.

    Raises: ScoreError when there is no batch, or something read is NaN or infinite.
    """
    batches = repeatable(data)
    uses: dict[Part, Use] = {}

    def found(use: Use) -> None:
        if wanted(use):
            empty = torch.empty(0)
            uses[part_of(use)] = replace(use, read=empty, made=empty)

    with watched_uses(model, found):
        run_batches(model, first_of(batches))
    for chosen in _portions(uses):
        yield _collected(model, batches, chosen, world)


def part_of(use: Use) -> Part:
    """Which part of which parameter a use multiplies with."""
    weight = use.weight
    return use.name, int(weight.storage_offset()), tuple(weight.shape), tuple(weight.stride())


def _portions(uses: Mapping[Part, Use]) -> Iterator[dict[Part, Use]]:
    portion: dict[Part, Use] = {}
    total = 0
    for part, use in uses.items():
        groups, features = _shape(use)
        size = groups * features * features * 8 * _BINS
        if portion and total + size > BYTES:
            yield portion
            portion, total = {}, 0
        portion[part] = use
        total += size
    if portion:
        yield portion


def _collected(
    model: nn.Module, batches: Iterable[Any], chosen: Mapping[Part, Use], world: World
) -> list[Moment]:
    sums = ExactSums(bins=_BINS)
    numbers = {part: str(k) for k, part in enumerate(chosen)}
    last: list[tuple[Use, Tensor, int]] = []

    def seen(use: Use) -> None:
        part = part_of(use)
        if part not in chosen:
            return
        # the last input is held, so that no other can stand in the same memory
        if not last or not _same_input(last[0][0], use):
            last[:] = [(use, *_square(use))]
        _, square, positions = last[0]
        sums.add_one_(numbers[part], square, count=positions)

    with watched_uses(model, seen):
        run_batches(model, batches)
    last.clear()
    sums.reduce_(world, what="moments of inputs")
    found = []
    for part, use in chosen.items():
        if numbers[part] not in sums:
            continue
        square, positions = sums.take(numbers[part])
        if not finite(square):
            raise ScoreError(
                f"what {part[0]} reads holds NaN or infinite values on this data; check the "
                "calibration data, or run the model in float32"
            )
        found.append(Moment(use, square, positions))
    return found


def _square(use: Use) -> tuple[Tensor, int]:
    """``sum of x x^T``, and of how many positions."""
    groups, features = _shape(use)
    square_GFF = torch.zeros(groups, features, features, dtype=torch.float64)
    positions = 0
    for read_GNF, _ in rows_of(use, limit=POSITIONS):
        wide = read_GNF if read_GNF.dtype.itemsize >= 4 else read_GNF.float()
        square_GFF += (wide.transpose(1, 2) @ wide).cpu()
        positions += read_GNF.shape[1]
    return square_GFF, positions


def _same_input(one: Use, other: Use) -> bool:
    a, b = one.read, other.read
    return (
        a.data_ptr() == b.data_ptr()
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a._version == b._version
        and one.window == other.window
        and _shape(one) == _shape(other)
    )


def _shape(use: Use) -> tuple[int, int]:
    """Groups and features."""
    if use.window is None:
        return 1, use.weight.shape[0]
    return use.window.groups, use.weight[0].numel()
