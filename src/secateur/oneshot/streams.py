"""What a layer's outputs are added to: the stream of a residual block.

A cut model's stream is not the dense one's any more when a block adds to it. What the block's last
layer is fitted to may make up for that, as long as both are known where the layer runs: the other
summand was made before. Found by following memory through one forward: products, then what is
affine for each output (a batch norm, a scale), then the addition.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from secateur.criteria.contractions import Scaling, Use, Watch
from secateur.oneshot.places import Counting, Place

Event = Use | Scaling
_AFFINE = {
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "cudnn_batch_norm",
    "mul",
    "mul_",
    "div",
    "div_",
}
_STRAIGHT = 1e-3
"""The part of a summand's variance that an affine function of the outputs may leave unexplained."""


@dataclass(frozen=True, slots=True)
class Step:
    """A result of an operator in a forward: the last place before it, how many operators ago that
    was, and which of its results."""

    after: Place | None
    operators: int
    part: int = 0


@dataclass(frozen=True)
class Beside:
    """What is added to what a place makes: the result of `step`, how much of the sum one unit of
    the place's outputs is, and the order of the result's dimensions in which its numbers lie as the
    outputs do; None where they do so in memory."""

    step: Step
    slopes_M: Tensor
    order: tuple[int, ...] | None = None


@dataclass
class _Made:
    """What is known of a piece of memory: which operator wrote it in which layout, and what it is
    affine in."""

    number: int
    step: Step
    strides: tuple[int, ...]
    affine: dict[Place, tuple[int, Event]] = field(default_factory=dict)


class Steps(Watch):  # type: ignore[no-untyped-call]
    """Watches a forward, telling every event with its place, and every operator with its step."""

    def __init__(
        self,
        model: nn.Module,
        seen: Callable[[Place, Event], bool | None],
        ran: Callable[[Step, str, tuple[Any, ...], Any], None],
    ) -> None:
        super().__init__(model, self._event, scaled=self._event)
        self._counting, self._seen_at, self._ran = Counting(), seen, ran
        self._last: Place | None = None
        self._since = 0

    def _event(self, event: Event) -> bool | None:
        place = self._counting.place(event)
        changed = self._seen_at(place, event)
        self._last, self._since = place, -1
        return changed

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        self._since += 1
        name = func._schema.name.rpartition("::")[2]
        self._ran(Step(self._last, self._since), name, tuple(args), out)
        return out


class Following:
    """Finds what is added to what each place makes; holds what the products of one batch make."""

    def __init__(self, model: nn.Module) -> None:
        self.found: dict[Place, Beside] = {}
        self.watch = Steps(model, self._event, self._ran)
        self._number = 0
        self._made: dict[int, _Made] = {}
        self._now: list[tuple[Place, Event]] = []

    def _event(self, place: Place, event: Event) -> None:
        self._now.append((place, event))

    def _ran(self, step: Step, name: str, args: tuple[Any, ...], out: Any) -> None:
        self._number += 1
        now, self._now = self._now, []
        tensors = [value for value in args if isinstance(value, Tensor)]
        summands = [value for value in tensors if value.shape == getattr(out, "shape", None)]
        if name in ("add", "add_") and len(summands) == 2:
            self._added(summands)
        affine: dict[Place, tuple[int, Event]] = {}
        if name in _AFFINE:  # or so it may be: its slopes will tell
            for value in tensors:
                affine |= self._affine_in(value)
        affine |= {place: (self._number, event) for place, event in now if _whole(event.made)}
        for part, made in enumerate(results(out)):
            step = replace(step, part=part)
            if isinstance(made, Tensor) and made.numel():
                if not name.endswith("_") and any(_memory(made) == _memory(t) for t in tensors):
                    continue  # a view
                self._made[_memory(made)] = _Made(self._number, step, made.stride(), affine)

    def _affine_in(self, tensor: Tensor) -> dict[Place, tuple[int, Event]]:
        known = self._made.get(_memory(tensor))
        return {} if known is None else dict(known.affine)

    def _added(self, summands: list[Tensor]) -> None:
        for one, other in (summands, summands[::-1]):
            beside = self._made.get(_memory(other))
            if beside is None or not (_whole(one) and _whole(other)):
                continue
            order = None if _alike(one, other) else _from(beside.strides, other, _order(one))
            for place, (number, event) in self._affine_in(one).items():
                slopes = None
                if beside.number < number and (order is not None or _alike(one, other)):
                    slopes = _slopes(event, one)
                if slopes is not None:
                    self.found[place] = Beside(beside.step, slopes, order)


def streams_of(model: nn.Module, run: Callable[[], Any]) -> dict[Place, Beside]:
    """For each place whose outputs are added to something made before: what, in one forward."""
    following = Following(model)
    with torch.no_grad(), following.watch:
        run()
    return following.found


def results(out: Any) -> Sequence[Any]:
    """What an operator returned, one or several."""
    return out if isinstance(out, (tuple, list)) else (out,)


def laid_as(values: Tensor, made: Tensor, order: Sequence[int] | None = None) -> Tensor:
    """The numbers of a tensor, in the order of their memory or of these dimensions, as those of
    `made` lie."""
    flat = values.permute(*(_order(values) if order is None else order)).reshape(-1)
    return flat.as_strided(made.shape, made.stride())


def _memory(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _order(tensor: Tensor) -> list[int]:
    """Dimensions from the outermost in memory to the innermost."""
    return sorted(range(tensor.dim()), key=lambda k: -tensor.stride()[k])


def _whole(tensor: Tensor) -> bool:
    """Whether a tensor is all of its memory, each number once."""
    whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return whole and tensor.permute(_order(tensor)).is_contiguous()


def _alike(one: Tensor, other: Tensor) -> bool:
    """Whether two summands lie in memory in the same way."""
    wide = [k for k, size in enumerate(one.shape) if size > 1]
    orders = [[k for k in _order(tensor) if k in wide] for tensor in (one, other)]
    return orders[0] == orders[1]


def _from(strides: Sequence[int], view: Tensor, order: Sequence[int]) -> tuple[int, ...] | None:
    """The dimensions of a tensor with these strides that `order` means of a view of it that has
    them in another order; None where it is no such view."""
    if sorted(strides) != sorted(view.stride()) or len(set(strides)) != len(strides):
        return None
    return tuple(strides.index(view.stride(k)) for k in order)


def _slopes(event: Event, summand: Tensor) -> Tensor | None:
    """By how much a summand rises with each of a place's outputs, None where it is no straight
    line."""
    if event.made.numel() != summand.numel():
        return None
    dim = 1 if isinstance(event, Use) else event.made.dim() - 1
    x_MN, y_MN = (
        values.movedim(dim, 0).flatten(1).double()
        for values in (event.made, laid_as(summand, event.made))
    )
    x_MN, y_MN = x_MN - x_MN.mean(1, keepdim=True), y_MN - y_MN.mean(1, keepdim=True)
    slopes_M = (x_MN * y_MN).sum(1) / x_MN.square().sum(1)
    slopes_M = slopes_M.nan_to_num(0.0, 0.0, 0.0)
    left = (y_MN - slopes_M[:, None] * x_MN).square().sum()
    return slopes_M if left <= _STRAIGHT * y_MN.square().sum() else None
