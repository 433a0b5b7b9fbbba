"""Masks of a model that ranks share out: each rank's parameters have the masks of its units.

A mask changes no dimension, so the model is shared out as it is without, and then every rank puts
its part of each mask on its part of the parameter. They stay in force as in one process.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import part_of
from secateur.masks.parametrization import Mask, attach_, masked_places, unmask_


@dataclass(frozen=True, slots=True)
class TakenMask:
    """places: the modules by path, and the name of the masked parameter there. kept: the mask."""

    places: tuple[tuple[str, str], ...]
    kept: Tensor

    @property
    def name(self) -> str:
        """Of the parameter, where no mask is."""
        path, leaf = self.places[0]
        return f"{path}.{leaf}" if path else leaf


def take_masks_(model: nn.Module) -> list[TakenMask]:
    """Take the masks off, and what they hide comes back; in the order in which they stood."""
    found: dict[Mask, list[tuple[str, str]]] = {}
    for name, _, leaf, mask in masked_places(model):
        found.setdefault(mask, []).append((name[: -len(leaf)].rstrip("."), leaf))
    taken = [TakenMask(tuple(places), mask.kept) for mask, places in found.items()]
    unmask_(model)
    return taken


def put_masks_(
    model: nn.Module, masks: list[TakenMask], plan: TensorParallelPlan, *, rank: int
) -> None:
    """Put a rank's part of each mask on the rank's model."""
    for mask in masks:
        places = [(model.get_submodule(path), leaf) for path, leaf in mask.places]
        attach_(places, part_of(mask.kept, mask.name, plan, rank))
