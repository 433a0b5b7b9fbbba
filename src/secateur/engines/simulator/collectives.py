"""What one rank sends in each collective, and in how many hops, under gloo and under NCCL.

Both move large tensors round a ring: an all-reduce of N bytes over R ranks sends 2(R-1)/R of N
from every rank, an all-gather (R-1) times a rank's part, however the ring is cut into segments.
gloo puts 48 bytes before each message and announces it twice; torch's reduce-scatter on gloo is
an all-reduce of which most is thrown away. Both were read off the wire, see
`benchmarks/results/simulator.md`; NCCL's were not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SEGMENT_BYTES = 1 << 20
"""gloo's largest message of an all-reduce."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """sent_bytes: by one rank, headers included. hops: how many messages follow one another, each
    of which waits for the one before; that is what latency counts.

    >>> Transfer(10, 2) + Transfer(5, 1)
    Transfer(sent_bytes=15, hops=3)
    """

    sent_bytes: float = 0.0
    hops: int = 0

    def __add__(self, other: Transfer) -> Transfer:
        return Transfer(self.sent_bytes + other.sent_bytes, self.hops + other.hops)

    def times(self, count: int) -> Transfer:
        """The same again and again."""
        return Transfer(self.sent_bytes * count, self.hops * count)


NOTHING = Transfer()


@dataclass(frozen=True, slots=True)
class Transport:
    """message_bytes: what a message costs beside its payload. scatters: whether a reduce-scatter
    is one. trees: whether a small all-reduce goes up and down a tree instead of round the ring."""

    name: str
    message_bytes: int
    scatters: bool
    trees: bool


GLOO = Transport("gloo", message_bytes=144, scatters=False, trees=False)
NCCL = Transport("nccl", message_bytes=0, scatters=True, trees=True)
TRANSPORTS = {transport.name: transport for transport in (GLOO, NCCL)}


def all_reduce(size_bytes: float, ranks: int, transport: Transport) -> Transfer:
    """Every rank ends with the sum of what all had, `size_bytes` each.

    >>> all_reduce(8e6, 4, NCCL)
    Transfer(sent_bytes=12000000.0, hops=4)
    """
    if ranks == 1 or size_bytes == 0:
        return NOTHING
    ring = 2 * (ranks - 1)
    messages = ring / ranks * _segments(size_bytes, ranks)
    sent = ring / ranks * size_bytes + messages * transport.message_bytes
    # a tree has fewer hops and the ring no more bytes; NCCL takes whichever is faster
    hops = min(ring, 2 * math.ceil(math.log2(ranks))) if transport.trees else ring
    return Transfer(sent, hops)


def all_gather(part_bytes: float, ranks: int, transport: Transport) -> Transfer:
    """Every rank ends with the parts of all, `part_bytes` each.

    >>> all_gather(1e6, 4, NCCL)
    Transfer(sent_bytes=3000000.0, hops=3)
    """
    if ranks == 1 or part_bytes == 0:
        return NOTHING
    hops = ranks - 1
    return Transfer(hops * (part_bytes + 2 * transport.message_bytes), hops)


def reduce_scatter(part_bytes: float, ranks: int, transport: Transport) -> Transfer:
    """Every rank ends with its part, `part_bytes`, of the sum of what all had, which is R of them.

    >>> reduce_scatter(1e6, 4, NCCL).sent_bytes, round(reduce_scatter(1e6, 4, GLOO).sent_bytes)
    (3000000.0, 6001728)
    """
    if not transport.scatters:
        return all_reduce(part_bytes * ranks, ranks, transport)
    return all_gather(part_bytes, ranks, transport)


def _segments(size_bytes: float, ranks: int) -> int:
    """Messages that gloo cuts an all-reduce into: at least two a rank, none of them empty."""
    least = max(math.ceil(size_bytes / SEGMENT_BYTES), 2 * ranks)
    segments = math.ceil(least / ranks) * ranks
    length = 4 * math.ceil(size_bytes / segments / 4)  # whole elements, of four bytes mostly
    return math.ceil(size_bytes / length)
