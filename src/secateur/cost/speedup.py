"""Whether one model is faster than another, with an interval and a plain verdict.

The ratio is that of the two medians, as a reader of the table would form it. Its 95 % interval
comes from resampling rounds: a round measured both models under the same disturbances, so rounds
are drawn in pairs. Two copies of one model differ by a per cent or two through where their memory
lies, which no number of rounds averages away; within `INDISTINCT` nothing is claimed.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from secateur.cost.latency import Latency

INDISTINCT = 0.03
RESAMPLES = 2000
Verdict = Literal["faster", "slower", "no speed-up"]


@dataclass(frozen=True, slots=True)
class Speedup:
    """ratio: dense time over pruned time; low, high: its 95 % interval."""

    ratio: float
    low: float
    high: float
    verdict: Verdict

    def __str__(self) -> str:
        """The verdict in words.

        >>> print(Speedup(2.9, 2.7, 3.1, "faster"))
        2.9 times faster (95 % interval 2.7 to 3.1)
        >>> print(Speedup(1.01, 0.99, 1.04, "no speed-up"))
        no speed-up beyond noise (ratio 1.01, 95 % interval 0.99 to 1.04)
        >>> print(Speedup(0.5, 0.49, 0.52, "slower"))
        2.0 times slower (95 % interval 1.9 to 2.0)
        """
        if self.verdict == "faster":
            return _times(self.ratio, self.low, self.high, "faster")
        if self.verdict == "slower":
            return _times(1 / self.ratio, 1 / self.high, 1 / self.low, "slower")
        return (
            f"no speed-up beyond noise (ratio {self.ratio:.2f}, "
            f"95 % interval {self.low:.2f} to {self.high:.2f})"
        )

    def to_json(self) -> dict[str, Any]:
        """The four fields."""
        return asdict(self)


def speedup(dense: Latency, pruned: Latency, *, seed: int = 0) -> Speedup:
    """How many times faster `pruned` is, both from one call of `measure_latency`.

    Raises: ValueError when the two were not measured under the same conditions.
    """
    conditions = [
        (each.batch, each.threads, each.device, each.dtype, len(each.samples_ms))
        for each in (dense, pruned)
    ]
    if conditions[0] != conditions[1]:
        raise ValueError(
            "latencies cannot be compared: (batch, threads, device, dtype, rounds) are "
            f"{conditions[0]} and {conditions[1]}; measure both in one measure_latency call"
        )
    dense_ms, pruned_ms = np.asarray(dense.samples_ms), np.asarray(pruned.samples_ms)
    rounds = len(dense_ms)
    draws = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    ratios = np.median(dense_ms[draws], axis=1) / np.median(pruned_ms[draws], axis=1)
    low, high = (float(bound) for bound in np.percentile(ratios, (2.5, 97.5)))
    return Speedup(dense.median_ms / pruned.median_ms, low, high, _verdict(low, high))


def _verdict(low: float, high: float) -> Verdict:
    if low > 1 + INDISTINCT:
        return "faster"
    if high < 1 / (1 + INDISTINCT):
        return "slower"
    return "no speed-up"


def _times(ratio: float, low: float, high: float, word: str) -> str:
    digits = 1 if ratio >= 1.5 else 2
    return f"{ratio:.{digits}f} times {word} (95 % interval {low:.{digits}f} to {high:.{digits}f})"
