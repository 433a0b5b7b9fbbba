"""Where a model's weights are used, in the order of its forward.

A place is the k-th use of a parameter. Dense and cut model run the same code, so the same place is
found in both; parameters that one forward uses twice in one piece, or that have two names, are
shared and have none.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.core.fingerprint import named_tensors
from secateur.criteria.contractions import Scaling, Use, Watch
from secateur.criteria.running import run_batch


@dataclass(frozen=True, slots=True)
class Place:
    """A parameter by its name in one model, and which use of it in a forward this is."""

    name: str
    number: int


class Counting:
    """Numbers the uses of each parameter in one forward."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def place(self, event: Use | Scaling) -> Place:
        """The place of what happens now."""
        self._count[event.name] += 1
        return Place(event.name, self._count[event.name] - 1)


def places_of(model: nn.Module, batch: Any) -> list[Place]:
    """The places of a model whose weights are their own, in order, for one batch."""
    found: list[tuple[Place, tuple[Any, ...]]] = []
    counting = Counting()

    def seen(event: Use | Scaling) -> None:
        part: tuple[Any, ...] = (event.name,)
        if isinstance(event, Use):
            part += (event.weight.storage_offset(), tuple(event.weight.shape))
        found.append((counting.place(event), part))

    with torch.no_grad(), Watch(model, seen, scaled=seen):
        run_batch(model, batch)
    times = Counter(part for _, part in found)
    names = Counter(id(tensor) for _, tensor in named_tensors(model))
    own = {name for name, p in model.named_parameters() if names[id(p)] == 1}
    return [place for place, part in found if times[part] == 1 and place.name in own]
