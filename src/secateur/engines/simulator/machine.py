"""How fast ranks compute and talk: a few numbers that the user states, none of them measured here.

A host holds neighbouring ranks. Ranks of one host talk over its own links; a ring that leaves the
host leaves it through the network card of each of its ranks there, all at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from secateur.engines.mesh import Mesh
from secateur.engines.simulator.collectives import GLOO, NCCL, Transfer, Transport

GB = 1e9


@dataclass(frozen=True, slots=True)
class Machine:
    """macs_per_second: of one rank in training, at what it reaches, not at what its maker says.
    bandwidth: bytes a second that one rank sends over its network card; host_bandwidth: to ranks
    of its own host. latency_s, host_latency_s: of one hop."""

    macs_per_second: float
    bandwidth: float
    host_bandwidth: float
    latency_s: float = 5e-6
    host_latency_s: float = 2e-6
    ranks_per_host: int = 8
    transport: Transport = NCCL

    def __post_init__(self) -> None:
        for name in ("macs_per_second", "bandwidth", "host_bandwidth", "ranks_per_host"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be greater than zero")
        for name in ("latency_s", "host_latency_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must not be negative")

    def seconds(self, transfer: Transfer, mesh: Mesh, name: str) -> float:
        """How long a transfer along a mesh dim takes.

        >>> loop = Machine(1e9, bandwidth=1e9, host_bandwidth=4e9, latency_s=0, host_latency_s=0)
        >>> loop.seconds(Transfer(4e9), Mesh(dp=8), "dp")
        1.0
        """
        size, stride = getattr(mesh, name), mesh.stride(name)
        if size * stride <= self.ranks_per_host:
            return transfer.hops * self.host_latency_s + transfer.sent_bytes / self.host_bandwidth
        together = max(1, self.ranks_per_host // stride)
        bandwidth = min(self.host_bandwidth, self.bandwidth * together)
        return transfer.hops * self.latency_s + transfer.sent_bytes / bandwidth


H100 = Machine(macs_per_second=200e12, bandwidth=50 * GB, host_bandwidth=450 * GB)
"""Eight GPUs a host: NVLink 450 GB/s each way, a 400 Gb/s card for each GPU, and 40 % of the 989
Tflop/s in bfloat16 that the maker states. Assumed, not measured."""
LOOPBACK = Machine(
    macs_per_second=20e9, bandwidth=1 * GB, host_bandwidth=1 * GB, ranks_per_host=8, transport=GLOO
)
"""Processes of one computer with gloo between them; assumed as well."""
