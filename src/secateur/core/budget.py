"""Budgets: at most this much of a cost may remain.

>>> [str(limit) for limit in Budget.parse("macs=50%,params=1.2M").limits]
['macs=50%', 'params=1.2e+06']
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from secateur.core.cost import Cost

COUNTED = ("params", "macs", "size", "memory")
MEASURED = ("latency", "energy")
_ATTRIBUTE = {
    "params": "params",
    "macs": "macs",
    "size": "size_bytes",
    "memory": "peak_memory_bytes",
    "latency": "latency_ms",
    "energy": "energy_j",
}
_UNITS = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "KB": 1e3, "MB": 1e6, "GB": 1e9}
_UNITS |= {"KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "ms": 1.0, "s": 1e3, "J": 1.0, "B": 1.0}
_TERM = re.compile(r"^\s*(\w+)\s*(?:<=|=)\s*([0-9.]+(?:e[0-9]+)?)\s*(%|[A-Za-z]*)\s*$")
_EXAMPLE = 'write for example "macs=50%" or "params=1.2M,macs=60%"'


@dataclass(frozen=True, slots=True)
class Limit:
    """One metric: at most `fraction` of the dense model's, or at most `absolute`."""

    metric: str
    fraction: float | None
    absolute: float | None

    def allowed(self, dense: Cost) -> float:
        """The largest allowed value of the metric, given the dense model's cost."""
        if self.absolute is not None:
            return self.absolute
        value = self.value(dense)
        assert self.fraction is not None
        return self.fraction * value

    def value(self, cost: Cost) -> float:
        """The metric's value in `cost`."""
        value = getattr(cost, _ATTRIBUTE[self.metric])
        if value is None:
            raise ValueError(f"{self.metric} was not measured in this cost")
        return float(value)

    def __str__(self) -> str:
        if self.fraction is not None:
            return f"{self.metric}={100 * self.fraction:g}%"
        return f"{self.metric}={self.absolute:g}"


@dataclass(frozen=True, slots=True)
class Budget:
    """Several limits, all of which must hold."""

    limits: tuple[Limit, ...]

    @classmethod
    def parse(cls, text: str | Budget) -> Budget:
        """Read "macs=50%" (half may remain), "params=1.2M", or several with commas.

        Raises: ValueError naming the term, the metrics and an example.
        """
        if isinstance(text, Budget):
            return text
        return cls(tuple(_parse_term(term) for term in text.split(",")))

    def met(self, cost: Cost, dense: Cost) -> bool:
        """Whether every limit holds."""
        return all(limit.value(cost) <= limit.allowed(dense) for limit in self.limits)

    def __str__(self) -> str:
        return ",".join(str(limit) for limit in self.limits)


def _parse_term(term: str) -> Limit:
    match = _TERM.match(term)
    if match is None:
        raise ValueError(f"budget {term!r} is not understood; {_EXAMPLE}")
    metric, number, unit = match.groups()
    if metric not in _ATTRIBUTE:
        raise ValueError(f"budget {term!r}: unknown metric {metric!r}, one of {list(_ATTRIBUTE)}")
    value = float(number)
    if unit == "%":
        if not 0 < value <= 100:
            raise ValueError(f"budget {term!r}: the share that remains must be in (0, 100] %")
        return Limit(metric, value / 100, None)
    if unit not in _UNITS:
        raise ValueError(f"budget {term!r}: unknown unit {unit!r}; {_EXAMPLE}")
    if value <= 0:
        raise ValueError(f"budget {term!r}: must be greater than zero")
    if unit == "" and value <= 1 and metric in COUNTED:
        raise ValueError(f"budget {term!r}: write a share as a percentage, {100 * value:g}%")
    return Limit(metric, None, value * _UNITS[unit])
