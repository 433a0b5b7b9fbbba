"""Gradients of a masked model as DistributedDataParallel averages them: masked weights send none.

A masked weight has no gradient on any rank, and every rank knows the masks. So the kept ones are
put together, without saying which they are, averaged, and put back: with 90 % masked a tenth of the
bytes. Where a bucket keeps more than half of its gradients it is sent as it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from secateur.masks.keys import flat
from secateur.masks.parametrization import Mask, masked_places, original

MOST = 0.5
"""Share of a bucket up to which it pays to put its kept gradients together."""

_Seen = tuple[Tensor, Tensor | None, int]
"""A parameter, what is kept of it, and how often that was written to."""


def send_kept_(averaging: DistributedDataParallel, model: nn.Module) -> None:
    """Let the averaging of `model`'s gradients leave out what masks hide, now and after they move.

    To be called before the first backward: DistributedDataParallel takes one such hook.
    """
    masks = {id(original(module, leaf)): mask for _, module, leaf, mask in masked_places(model)}
    if not masks:
        return
    kept = _Kept(averaging.process_group, masks)
    # without annotations, which torch reads and does not take as text
    averaging.register_comm_hook(kept, lambda state, bucket: _average(state, bucket))


@dataclass
class _Kept:
    """masks: by the id of their parameter. indices: by bucket, what masks its parameters had, and
    where the kept gradients stood by them."""

    group: dist.ProcessGroup
    masks: dict[int, Mask]
    indices: dict[int, tuple[list[_Seen], Tensor | None]] = field(default_factory=dict)

    def index(self, bucket: Any) -> Tensor | None:
        """Where the kept gradients of a bucket stand, None where most are kept."""
        parameters = bucket.parameters()
        now = [self._mask(parameter) for parameter in parameters]
        known = self.indices.get(bucket.index())
        if known is None or not _same(known[0], now):
            known = now, self._found(parameters)
            self.indices[bucket.index()] = known
        return known[1]

    def _mask(self, parameter: Tensor) -> _Seen:
        mask = self.masks.get(id(parameter))
        return (parameter, None, 0) if mask is None else (parameter, mask.kept, mask.kept._version)

    def _found(self, parameters: list[Tensor]) -> Tensor | None:
        parts, start, total = [], 0, sum(p.numel() for p in parameters)
        for parameter in parameters:
            mask = self.masks.get(id(parameter))
            if mask is None:
                own = torch.arange(parameter.numel(), device=parameter.device)
            else:
                own = flat(mask.kept, like=parameter).nonzero().view(-1)
            parts.append(own.add_(start))
            start += parameter.numel()
        count = sum(len(part) for part in parts)
        return torch.cat(parts) if count <= MOST * total else None


def _same(before: list[_Seen], now: list[_Seen]) -> bool:
    """Whether a bucket has the same parameters and masks as before."""
    return len(before) == len(now) and all(
        one[0] is other[0] and one[1] is other[1] and one[2] == other[2]
        for one, other in zip(before, now, strict=True)
    )


def _average(kept: _Kept, bucket: Any) -> torch.futures.Future[Tensor]:
    buffer, index = bucket.buffer(), kept.index(bucket)
    sent = buffer if index is None else buffer.index_select(0, index)
    sent.div_(kept.group.size())
    work = dist.all_reduce(sent, group=kept.group, async_op=True)
    assert work is not None

    def received(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        (average,) = future.value()
        return average if index is None else buffer.zero_().index_copy_(0, index, average)

    done: torch.futures.Future[Tensor] = work.get_future().then(received)
    return done
