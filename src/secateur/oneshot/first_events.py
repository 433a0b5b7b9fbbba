"""What happens first at a place, told to ranks whose own batches do not get there.

An expert may be picked on one rank alone, and a rank may have no batch at all; every rank writes
the fitted weights nevertheless, so it has to know which part of which parameter they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from secateur.core.world import World
from secateur.criteria.contractions import Scaling, Use, Window
from secateur.oneshot.pairs import Event, Pair


@dataclass(frozen=True)
class Events:
    """The same event of the cut and the dense model. pairs: this rank's of that kind."""

    cut: Event
    dense: Event
    pairs: Sequence[Pair]


def first_events(
    pairs: Sequence[Pair], small: nn.Module, model: nn.Module, *, world: World
) -> Events | None:
    """The first pair over all ranks in which both models use a weight in a product, or else in a
    scaling; None where there is none. Of several ranks the events have no tensors but weights."""
    found: dict[type[Use] | type[Scaling], list[Pair]] = {
        kind: [pair for pair in pairs if type(pair.cut) is type(pair.dense) is kind]
        for kind in _KINDS
    }
    if world.size == 1:
        return next((_own_first(own) for own in found.values() if own), None)
    own: list[Any] = [_told(found[kind][0]) if found[kind] else None for kind in _KINDS]
    told = world.gather(own, what="where a layer is used")
    for k, kind in enumerate(_KINDS):
        known = [one[k] for one in told if one[k] is not None]
        if known:
            _, cut, dense = min(known, key=lambda one: int(one[0]))
            return Events(_event(small, cut), _event(model, dense), found[kind])
    return None


_KINDS: tuple[type[Use] | type[Scaling], ...] = (Use, Scaling)


def _own_first(pairs: Sequence[Pair]) -> Events:
    cut, dense = pairs[0].cut, pairs[0].dense
    assert cut is not None and dense is not None
    return Events(cut, dense, pairs)


def _told(pair: Pair) -> list[Any]:
    return [pair.number, *(_event_told(event) for event in (pair.cut, pair.dense))]


def _event_told(event: Event | None) -> list[Any]:
    if isinstance(event, Use):
        window, weight = event.window, event.weight
        where = [weight.storage_offset(), list(weight.shape), list(weight.stride())]
        walk = window and [window.stride, window.padding, window.dilation, window.groups]
        return [event.name, event.bias, where, walk]
    assert event is not None
    return [event.name, event.bias]


def _event(model: nn.Module, told: Sequence[Any]) -> Event:
    empty = torch.empty(0)
    if len(told) == 2:
        return Scaling(told[0], empty, told[1])
    name, bias, (offset, shape, stride), walk = told
    weight = model.get_parameter(name).detach().as_strided(shape, stride, offset)
    window = None
    if walk is not None:
        stride, padding, dilation = (tuple(one) for one in walk[:3])
        window = Window(stride, padding, dilation, walk[3])
    return Use(name, weight, empty, empty, bias, window)
