"""A mask as an ordinary parametrization of torch: the weight that a module reads is the parameter
where it is kept and zero elsewhere.

The parameter stays the same object, so an optimizer made before goes on. What is masked keeps its
value underneath, gets no gradient, and no longer counts; the optimizer's momentum and weight decay
go on moving the hidden value, which nobody reads. `fold_` writes the zeros into the parameter and
leaves an ordinary module; `unmask_` takes the masks away and the hidden values come back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from secateur.core.fingerprint import named_modules
from secateur.masks.held import release_
from secateur.masks.hiding import bits_of, hidden
from secateur.masks.zeroing import zero_

Place = tuple[nn.Module, str]
"""A module and the name under which it holds a parameter."""


class Mask(nn.Module):
    """kept: true where the weight stays; a buffer, saved with the model. order: the names of the
    parameters of the module as it was, which `fold_` restores."""

    kept: Tensor

    def __init__(self, kept: Tensor, order: tuple[str, ...]) -> None:
        super().__init__()
        self.register_buffer("kept", kept)
        self.order = order
        self.on_gradient: Callable[[Tensor], None] | None = None
        self._bits: tuple[Tensor, int, Tensor] | None = None

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with zeros. `on_gradient` is told the gradient of what is returned here,
        which is dense: what a masked weight would get if it were not masked."""
        if _is_trained_here(weight) and not self.kept.is_inference():
            out = hidden(weight, self.bits(weight))
        else:
            out = torch.where(self.kept, weight, 0)
        if out.stride() != weight.stride():
            out = _restrided(out, weight)
        if self.on_gradient is not None and out.requires_grad:
            out.register_hook(self.on_gradient)  # type: ignore[no-untyped-call]
        return out

    def bits(self, weight: Tensor) -> Tensor:
        """What `hidden` is told of the mask; made once for as long as the mask stays what it is."""
        kept, known = self.kept, self._bits
        if known is None or known[0] is not kept or known[1] != kept._version:
            known = None
        if known is None or known[2].element_size() != weight.element_size():
            known = kept, kept._version, bits_of(kept, weight)
            self._bits = known
        return known[2]

    def right_inverse(self, weight: Tensor) -> Tensor:
        """An assigned weight becomes the parameter; what is masked of it is hidden."""
        return weight

    def __getstate__(self) -> dict[str, Any]:
        """A copy tells nobody of its gradients, and makes bits of its own."""
        return {**self.__dict__, "on_gradient": None, "_bits": None}

    def extra_repr(self) -> str:
        return f"{tuple(self.kept.shape)}, {self.zeros:,} of {self.kept.numel():,} zero"

    @property
    def zeros(self) -> int:
        """How many weights are masked."""
        return self.kept.numel() - int(torch.count_nonzero(self.kept))


def _is_trained_here(weight: Tensor) -> bool:
    """Whether a gradient is to come on the CPU, where `hidden` takes a tenth of the time of
    `torch.where`. Elsewhere that is as fast, and needs no bits of the size of the weights."""
    return (
        weight.requires_grad
        and weight.is_floating_point()
        and weight.device.type == "cpu"
        and torch.is_grad_enabled()
        and type(weight) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def _restrided(out: Tensor, weight: Tensor) -> Tensor:
    """With the strides of the weight, if they differ in dimensions of one element alone.

    A convolution takes from the strides of its weight whether to compute channels_last, also from
    those of a single input channel, which element-wise operators set anew.
    """
    sides = zip(out.shape, out.stride(), weight.stride(), strict=True)
    if any(size > 1 and own != other for size, own, other in sides):
        return out
    return out.as_strided(weight.shape, weight.stride())


def mask_at(module: nn.Module, leaf: str) -> Mask | None:
    """The mask of a module's parameter, None without one."""
    return masks_of(module).get(leaf)


def masks_of(module: nn.Module) -> dict[str, Mask]:
    """The masks of a module's own parameters; not those among other parametrizations."""
    if not parametrize.is_parametrized(module):
        return {}
    found = {}
    lists: nn.ModuleDict = module.parametrizations  # type: ignore[assignment]
    for leaf, steps in lists.items():
        assert isinstance(steps, parametrize.ParametrizationList)
        if len(steps) == 1 and isinstance(steps[0], Mask):
            found[leaf] = steps[0]
    return found


def attach_(places: Iterable[Place], kept: Tensor) -> Mask:
    """Mask a parameter at all the places that share it; the masks before are replaced."""
    mask: Mask | None = None
    places = list(places)
    kept = laid_out(kept, original(*places[0]))
    for module, leaf in places:
        present = mask_at(module, leaf)
        if present is not None:
            present.kept = kept
            mask = present
            continue
        others = masks_of(module).values()
        order = next((other.order for other in others), tuple(module._parameters))
        if mask is None:
            mask = Mask(kept, order)
        parametrize.register_parametrization(module, leaf, mask, unsafe=True)
    assert mask is not None
    return mask


def masked_places(model: nn.Module) -> list[tuple[str, nn.Module, str, Mask]]:
    """Every masked parameter by path, with its module, its name there and the mask; tied ones
    under each name."""
    return [
        (f"{path}.{leaf}" if path else leaf, module, leaf, mask)
        for path, module in named_modules(model)
        for leaf, mask in masks_of(module).items()
    ]


def fold_(model: nn.Module) -> nn.Module:
    """The model with its masks turned into plain zeros: ordinary modules, names as before.

    Parameters stay the same objects. A model without masks is left as it is.

    >>> from secateur.masks import mask_
    >>> layer = nn.Linear(4, 4)
    >>> plan = mask_(layer, sparsity=0.5)
    >>> list(fold_(layer).state_dict()), int((layer.weight == 0).sum())
    (['weight', 'bias'], 8)
    """
    places = masked_places(model)
    done: set[int] = set()
    for _, module, leaf, mask in places:
        if id(mask) not in done:
            done.add(id(mask))
            zero_(original(module, leaf), mask.kept)
    _remove_(places)
    release_(model)
    return model


def unmask_(model: nn.Module) -> nn.Module:
    """The model without its masks: what they hid comes back as it is underneath.

    Masks of shards hide nothing: their zeros stay, and learn again.
    """
    _remove_(masked_places(model))
    release_(model)
    return model


def original(module: nn.Module, leaf: str) -> nn.Parameter:
    """The parameter under a mask, or the plain one."""
    if leaf in masks_of(module):
        parameter = module.parametrizations[leaf].original  # type: ignore[index, union-attr]
    else:
        parameter = module._parameters[leaf]
    assert isinstance(parameter, nn.Parameter)
    return parameter


def laid_out(kept: Tensor, weight: Tensor) -> Tensor:
    """A mask in the memory layout of its weight: what a module computes depends on it in the last
    bits, so it must not depend on how the mask came about."""
    if kept.stride() == weight.stride():
        return kept
    return torch.empty_like(weight, dtype=torch.bool, requires_grad=False).copy_(kept)


def _remove_(places: list[tuple[str, nn.Module, str, Mask]]) -> None:
    by_module: dict[nn.Module, dict[str, Mask]] = {}
    for _, module, leaf, mask in places:
        by_module.setdefault(module, {})[leaf] = mask
    for module, masks in by_module.items():
        _restore_(module, masks)


def _restore_(module: nn.Module, masks: dict[str, Mask]) -> None:
    """Take the masks off a module and put its parameters back in their places."""
    order = next(iter(masks.values())).order
    parameters = {leaf: original(module, leaf) for leaf in masks}
    if len(masks) == len(module.parametrizations):  # type: ignore[arg-type]
        # the class is left as it is: copies of the module share it, and their masks stay
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
        for leaf, parameter in parameters.items():
            module.register_parameter(leaf, parameter)
    else:
        for leaf in masks:
            parametrize.remove_parametrizations(module, leaf, leave_parametrized=False)
    held = module._parameters
    for name in (*(n for n in order if n in held), *(n for n in list(held) if n not in order)):
        held[name] = held.pop(name)
