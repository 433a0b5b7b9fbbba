"""Where a forward's time goes, module by module, in the dense model and in what a cut left of it.

Each module's own time, without that of what it calls, scaled so that all of them together are the
latency that was measured of the whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from secateur.cost.batch import resize_batch
from secateur.cost.clocks import own_times
from secateur.search.timing import Device

SHOWN = 8
ITSELF = "(the model itself)"


@dataclass(frozen=True, slots=True)
class ModuleTime:
    """Milliseconds of one module by itself, before and after a cut; 0 where it is not there."""

    path: str
    before_ms: float
    after_ms: float


@dataclass(frozen=True, slots=True)
class WhereTimeGoes:
    """modules: those that take longest after the cut come first. before_ms, after_ms: whole."""

    modules: tuple[ModuleTime, ...]
    before_ms: float
    after_ms: float

    @property
    def top(self) -> tuple[ModuleTime, ...]:
        """The few that take most."""
        return self.modules[:SHOWN]

    def line(self) -> str:
        """In one sentence.

        >>> times = (ModuleTime("fc", 4.0, 3.0), ModuleTime("conv", 6.0, 1.0))
        >>> WhereTimeGoes(times, 10.0, 4.0).line()
        'of the 4 ms that remain fc takes 75 % (3 ms of 4 ms before), conv 25 % (1 ms of 6 ms)'
        """
        parts = [
            f"{each.path or ITSELF} {'takes ' if not number else ''}"
            f"{100 * each.after_ms / self.after_ms:.0f} % ({each.after_ms:.3g} ms of "
            f"{each.before_ms:.3g} ms{' before' if not number else ''})"
            for number, each in enumerate(self.modules[:3])
        ]
        return f"of the {self.after_ms:.3g} ms that remain {', '.join(parts)}"

    def to_json(self) -> dict[str, Any]:
        """All modules."""
        return asdict(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> WhereTimeGoes:
        """Inverse of `to_json`."""
        modules = tuple(ModuleTime(**row) for row in body["modules"])
        return cls(modules, body["before_ms"], body["after_ms"])


def where_time_goes(
    dense: nn.Module,
    small: nn.Module,
    example_inputs: Any,
    *,
    device: Device,
    whole_ms: tuple[float, float],
) -> WhereTimeGoes:
    """Own times of the modules of both, scaled to what the wholes measured; as the runtime tells
    them, in eager mode where it does not.

    whole_ms: of dense and small, in the device's runtime.
    """
    own = [
        _scaled(_own(model, example_inputs, device), whole)
        for model, whole in zip((dense, small), whole_ms, strict=True)
    ]
    paths = dict.fromkeys([*own[1], *own[0]])
    rows = [ModuleTime(path, own[0].get(path, 0.0), own[1].get(path, 0.0)) for path in paths]
    rows.sort(key=lambda row: -row.after_ms)
    return WhereTimeGoes(tuple(rows), *whole_ms)


def _own(model: nn.Module, example_inputs: Any, device: Device) -> Mapping[str, float]:
    ready = device.prepare(model, example_inputs)
    if ready.own_times is not None:
        return ready.own_times()
    inputs, _ = resize_batch(example_inputs, device.batch_size)
    return own_times(model, inputs, threads=device.threads)


def _scaled(own: Mapping[str, float], whole_ms: float) -> dict[str, float]:
    scale = whole_ms / sum(own.values())
    return {path: ms * scale for path, ms in own.items()}
