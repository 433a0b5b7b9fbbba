"""Masks of parameters of which each rank holds a shard: one bit a weight, zeros in the weights.

A parametrization cannot stand on a parameter that FSDP2 has sharded: FSDP2 writes what it gathers
for a forward to the module's own attribute, which a parametrization has replaced, and put on before
it would keep a whole mask on every rank, a quarter of the model. So the zeros are written into the
shards: what is gathered is masked already, nothing more is sent or held. A masked weight gets no
gradient; `keep_zeros_` makes an optimizer write the zeros again after each step, for what momentum
of before may have moved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from secateur.core.fingerprint import named_modules
from secateur.masks.zeroing import zero_packed_

_KEY = "_held_masks"
"""Under which a module keeps the masks of its parameters, by name: they are no part of its state,
for a plain tensor in the state of a sharded model is taken for one that all ranks share."""


class HeldMask:
    """parameter: the sharded one. bits: of this rank's elements, eight to a byte. local: gives
    the memory of what lies here of a tensor that is laid out like the parameter."""

    def __init__(
        self, parameter: nn.Parameter, bits: Tensor, local: Callable[[Tensor], Tensor]
    ) -> None:
        self.parameter, self.bits, self.local = parameter, bits.to(parameter.device), local
        self._hook: RemovableHandle | None = None
        if parameter.requires_grad:
            register: Any = parameter.register_post_accumulate_grad_hook
            self._hook = register(self._on_gradient)

    def zero_(self) -> None:
        """Zero the weights that are masked."""
        zero_packed_(self.local(self.parameter), self.bits)

    def remove_(self) -> None:
        """The parameter learns freely again; what is zero stays so until then."""
        if self._hook is not None:
            self._hook.remove()

    def _on_gradient(self, parameter: Tensor) -> None:
        if parameter.grad is not None:
            zero_packed_(self.local(parameter.grad), self.bits)


def hold_(places: Iterable[tuple[nn.Module, str]], mask: HeldMask) -> None:
    """Zero what is masked, and keep the mask at all places that share the parameter."""
    places = list(places)
    for module, leaf in places:
        held = vars(module).setdefault(_KEY, {})
        if leaf in held:
            held[leaf].remove_()
        held[leaf] = mask
    mask.zero_()


def held_at(module: nn.Module, leaf: str) -> HeldMask | None:
    """The mask that is held at a module's parameter."""
    found: HeldMask | None = vars(module).get(_KEY, {}).get(leaf)
    return found


def release_(model: nn.Module) -> None:
    """Forget all masks that are held. The zeros stay where they are."""
    for mask in _held(model):
        mask.remove_()
    for _, module in named_modules(model):
        vars(module).pop(_KEY, None)


def keep_zeros_(model: nn.Module, optimizer: Optimizer) -> RemovableHandle:
    """Let an optimizer write the zeros of a model's held masks again after each of its steps.

    Returns what ends it: ``handle.remove()``.
    """

    def after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        for mask in _held(model):
            mask.zero_()

    return optimizer.register_step_post_hook(after_step)


def _held(model: nn.Module) -> list[HeldMask]:
    """Each mask once."""
    found = {}
    for _, module in named_modules(model):
        for mask in vars(module).get(_KEY, {}).values():
            found[id(mask)] = mask
    return list(found.values())
