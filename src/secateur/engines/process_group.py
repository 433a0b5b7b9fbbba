"""A world of the processes of a torch process group: gloo on the CPU, NCCL on GPUs.

Sums are torch's all-reduce, whose result has the same bits on every rank. Plain values travel as
JSON, never as pickles. What is sent is counted, so that it can be reported.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from secateur.core.shards import Part
from secateur.engines.failures import LostError, is_lost
from secateur.engines.waiting import Watch

T = TypeVar("T")


@dataclass(slots=True)
class Traffic:
    """calls: how many times all ranks met. payload_bytes: of this rank's part in them, before
    whatever algorithm carries it. solos: how often rank 0 worked alone."""

    calls: int = 0
    payload_bytes: int = 0
    solos: int = 0

    def count_(self, size_bytes: int) -> None:
        """One more meeting."""
        self.calls += 1
        self.payload_bytes += size_bytes


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The world of a torch process group; None for that of all processes. watch: is told what
    this rank is at, where there is one."""

    group: dist.ProcessGroup | None = None
    traffic: Traffic = field(default_factory=Traffic)
    watch: Watch | None = None

    @property
    def rank(self) -> int:
        """Of this process within the group."""
        return dist.get_rank(self.group)

    @property
    def size(self) -> int:
        """Processes of the group."""
        return dist.get_world_size(self.group)

    def sum_(self, tensors: Sequence[Tensor], *, what: str) -> None:
        """See `World`. Raises: EngineError when a rank is gone or does not come."""
        for tensor in tensors:
            self.traffic.count_(tensor.numel() * tensor.element_size())
            dense = tensor.contiguous()
            if dense.device.type == "cpu":  # statistics may be, where NCCL sends
                dense = dense.to(self._device)
            self._met(partial(dist.all_reduce, dense, group=self.group), what)
            if dense is not tensor:
                tensor.copy_(dense)

    def gather(self, value: T, *, what: str) -> list[T]:
        """See `World`. Raises: EngineError."""
        body = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        body = body.to(self._device)
        lengths = torch.zeros(self.size, dtype=torch.int64, device=self._device)
        lengths[self.rank] = len(body)
        self.sum_([lengths], what=what)
        longest = int(lengths.max())
        padded = torch.zeros(longest, dtype=torch.uint8, device=self._device)
        padded[: len(body)] = body
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        self.traffic.count_(longest)
        self._met(lambda: dist.all_gather(parts, padded, group=self.group), what)
        texts = (part[:length] for part, length in zip(parts, lengths.tolist(), strict=True))
        return [json.loads(text.cpu().numpy().tobytes()) for text in texts]

    def first(self, value: T, *, what: str) -> T:
        """See `World`. Raises: EngineError."""
        return self.gather(value if self.rank == 0 else None, what=what)[0]  # type: ignore[return-value]

    def wait(self, *, what: str) -> None:
        """See `World`. Raises: EngineError."""
        self.gather(None, what=what)

    def swap(
        self, sent: Sequence[Tensor | None], came: Sequence[Tensor | None], *, what: str
    ) -> None:
        """See `redistribute.Postal`. Raises: EngineError."""
        group = dist.group.WORLD if self.group is None else self.group
        assert group is not None
        posts = []
        for send, tensors in ((dist.irecv, came), (dist.isend, sent)):
            for rank, tensor in enumerate(tensors):
                if tensor is not None:
                    peer = dist.get_global_rank(group, rank)
                    posts.append(dist.P2POp(send, tensor, peer, self.group))
        leaving = [tensor for tensor in sent if tensor is not None]
        self.traffic.count_(sum(tensor.numel() * tensor.element_size() for tensor in leaving))

        def meet() -> None:
            for work in dist.batch_isend_irecv(posts) if posts else ():
                work.wait()

        self._met(meet, what)

    def settle_(self, model: nn.Module) -> None:
        """See `core.shards.ShardedWorld`."""
        from secateur.engines.shards import settle_

        settle_(model)

    def parts(self, tensors: Mapping[str, Tensor]) -> dict[str, Part]:
        """See `core.shards.ShardedWorld`. Raises: EngineError."""
        from secateur.engines.shards import parts_of

        return parts_of(tensors, self)

    def local(self, tensor: Tensor) -> Tensor:
        """See `core.shards.ShardedWorld`."""
        from secateur.engines.shards import local_of

        return local_of(tensor)

    @property
    def _device(self) -> torch.device:
        """Where tensors must lie to be sent."""
        if dist.get_backend(self.group) == "nccl":
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("cpu")

    @contextmanager
    def meeting(self, what: str) -> Iterator[None]:
        """What the ranks do together, outside this class too. Raises: EngineError."""
        if self.watch is not None:
            self.watch.waits_(what)
        try:
            yield
        except RuntimeError as error:
            if not is_lost(error):
                raise
            raise self._lost(what, error) from error
        if self.watch is not None:
            self.watch.works_(what)

    def solos_(self) -> int:
        """The number of the next work of rank 0 alone."""
        self.traffic.solos += 1
        return self.traffic.solos

    def _met(self, meet: Callable[[], object], what: str) -> None:
        if self.watch is not None:
            self.watch.waits_(what)
        try:
            meet()
        except RuntimeError as error:
            raise self._lost(what, error) from error
        if self.watch is not None:
            self.watch.works_(what)

    def _lost(self, what: str, error: RuntimeError) -> LostError:
        return LostError(
            f"rank {self.rank} of {self.size} could not agree with the others on {what}: "
            f"{error}. A rank has ended or does not answer; look at the other ranks' messages, "
            "and start the same command again: it goes on from the last checkpoint"
        )
