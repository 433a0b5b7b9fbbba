"""What a model costs. Counted figures are exact; measured ones are None until measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Cost:
    """Cost of one model at one input shape.

    params: parameters, tied ones once. macs: multiply-accumulates of one forward at the traced
    batch. size_bytes: parameters and buffers in their own dtypes. peak_memory_bytes: counted,
    weights plus the largest set of activations alive at once. latency_ms: measured median.
    energy_j: measured, per forward.
    """

    params: int
    macs: int
    size_bytes: int
    peak_memory_bytes: int | None = None
    latency_ms: float | None = None
    energy_j: float | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
