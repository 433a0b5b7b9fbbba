"""Copies of tensors in main memory, so that a training can go on while they are written.

The buffers stay from one checkpoint to the next, and are pinned where the tensors lie on a GPU, so
that a copy takes as long as the bus needs. They may be filled again only when nobody reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(slots=True)
class Staging:
    """See the module.

    >>> staging, weights = Staging(), torch.ones(2)
    >>> held = staging.hold({"w": weights})
    >>> _ = weights.zero_()
    >>> held["w"].tolist()
    [1.0, 1.0]
    """

    _buffers: dict[str, Tensor] = field(default_factory=dict, repr=False)

    def hold(
        self, tensors: Mapping[str, Tensor], *, lent: tuple[str, ...] = ()
    ) -> dict[str, Tensor]:
        """The tensors as they are now, contiguous, on the CPU, none sharing memory with another.

        lent: beginnings of the names of tensors that nobody writes into any more. They are not
        copied where they lie as they must.
        """
        held: dict[str, Tensor] = {}
        kept: dict[str, Tensor] = {}
        devices = set[torch.device]()
        for name, tensor in tensors.items():
            if name.startswith(lent) and _lies_alone(tensor):
                held[name] = tensor.detach()
                continue
            held[name] = kept[name] = _filled(self._buffers.pop(name, None), tensor.detach())
            if tensor.is_cuda:
                devices.add(tensor.device)
        self._buffers = kept
        for device in devices:
            torch.cuda.synchronize(device)
        return held


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same in memory of its own, which goes when it is no longer used."""
    return {name: copy_of(tensor) for name, tensor in tensors.items()}


def copy_of(tensor: Tensor) -> Tensor:
    """A copy that owns all of its memory and nothing more, as safetensors demands."""
    return tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)


def _filled(buffer: Tensor | None, tensor: Tensor) -> Tensor:
    """A copy of a tensor, in `buffer` where it fits."""
    fits = (
        buffer is not None
        and buffer.shape == tensor.shape
        and buffer.dtype == tensor.dtype
        and buffer.is_pinned() == tensor.is_cuda
    )
    if buffer is None or not fits:
        buffer = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    return buffer.copy_(tensor, non_blocking=tensor.is_cuda)


def _lies_alone(tensor: Tensor) -> bool:
    size_bytes = tensor.numel() * tensor.element_size()
    return (
        tensor.device.type == "cpu"
        and tensor.is_contiguous()
        and tensor.untyped_storage().nbytes() == size_bytes
    )
