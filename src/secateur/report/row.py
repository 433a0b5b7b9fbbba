"""One model's figures, as a line of the comparison table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from secateur.cost.latency import Latency


@dataclass(frozen=True, slots=True)
class ModelRow:
    """Cost and accuracy of one model; None where nothing was measured.

    name: "dense", "pruned", "random", or that of an extra point. accuracy: a share of held-out
    samples, in [0, 1]. zeros: entries of weights (two or more dimensions) that are exactly zero.
    """

    name: str
    params: int
    macs: int
    size_bytes: int
    peak_memory_bytes: int | None = None
    latency: Latency | None = None
    accuracy: float | None = None
    zeros: int | None = None

    @property
    def latency_ms(self) -> float | None:
        """Median time of one forward."""
        return None if self.latency is None else self.latency.median_ms

    @property
    def throughput_per_s(self) -> float | None:
        """Samples per second."""
        return None if self.latency is None else self.latency.throughput_per_s

    def to_json(self) -> dict[str, Any]:
        """The figures, the median latency beside them and the rest of the latency below."""
        return {
            "name": self.name,
            "params": self.params,
            "macs": self.macs,
            "size_bytes": self.size_bytes,
            "peak_memory_bytes": self.peak_memory_bytes,
            "latency_ms": None if self.latency is None else round(self.latency.median_ms, 6),
            "throughput_per_s": self.throughput_per_s,
            "accuracy": self.accuracy,
            "zeros": self.zeros,
            "latency": None if self.latency is None else self.latency.to_json(),
        }

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> ModelRow:
        """Inverse of `to_json`."""
        latency = body["latency"]
        return cls(
            name=body["name"],
            params=body["params"],
            macs=body["macs"],
            size_bytes=body["size_bytes"],
            peak_memory_bytes=body["peak_memory_bytes"],
            latency=None if latency is None else Latency.from_json(latency),
            accuracy=body["accuracy"],
            zeros=body.get("zeros"),
        )
