"""What differs between the settings of a run and those it is called with again, and which stages
the difference touches: the first that differs, and all after it, for each works on what the one
before it made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MEASURING = (
    "latency_batch",
    "threads",
    "runtime",
    "latency_precision",
    "price_per_hour",
    "baseline",
)
"""Settings that no stage of the pruned model depends on."""
SHOWING = ("checkpoint_every", "async_checkpoints", "progress")
"""Settings of a training that change nothing about its numbers."""
TOLD = 4


@dataclass(frozen=True, slots=True)
class Change:
    """keys: what differs, with the value before and now. first: number (from 1) of the first stage
    that must be done again, one more than there are where only measuring is. stages: names of the
    stages now."""

    keys: Mapping[str, tuple[Any, Any]]
    first: int
    stages: tuple[str, ...]

    @property
    def kept(self) -> tuple[str, ...]:
        """The stages that stay as they are."""
        return self._named()[: self.first - 1]

    @property
    def again(self) -> tuple[str, ...]:
        """The stages that must be done again."""
        return self._named()[self.first - 1 :]

    def _named(self) -> tuple[str, ...]:
        return tuple(f"stage {number} ({name})" for number, name in enumerate(self.stages, 1))


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Change | None:
    """How the settings differ, None where they do not.

    >>> old = {"seed": 0, "stages": [{"prune": {"budget": "macs=50%"}}, {"mask": {"n": 2}}]}
    >>> new = {"seed": 0, "stages": [{"prune": {"budget": "macs=50%"}}, {"mask": {"n": 1}}]}
    >>> change = changes(old, new)
    >>> told(change), change.kept, change.again
    ('stages.2.mask.n was 2 and is now 1', ('stage 1 (prune)',), ('stage 2 (mask)',))
    """
    old, new = _flat(before), _flat(now)
    keys = {
        key: (old.get(key), new.get(key))
        for key in {**old, **new}
        if old.get(key) != new.get(key) and key.rpartition(".")[2] not in SHOWING
    }
    if not keys:
        return None
    listed = now.get("stages")
    stages = [_name_of(stage) for stage in listed] if listed is not None else ["prune"]
    return Change(keys, min(_stage_of(key, len(stages)) for key in keys), tuple(stages))


def told(change: Change) -> str:
    """What differs in words, the first few."""
    parts = [f"{key} was {old!r} and is now {new!r}" for key, (old, new) in change.keys.items()]
    more = len(parts) - TOLD
    return ", ".join(parts[:TOLD]) + (f", and {more} more" if more > 0 else "")


def _name_of(stage: Mapping[str, Any]) -> str:
    return next(name for name, settings in stage.items() if settings is not None)


def _stage_of(key: str, count: int) -> int:
    """The first stage that a setting says something to."""
    first, *rest = key.split(".")
    if first == "stages" and rest:
        return int(rest[0])
    return count + 1 if first in MEASURING else 1


def _flat(settings: Any, *, before: str = "") -> dict[str, Any]:
    """Values by dotted keys, those of lists of sections numbered from 1."""
    if isinstance(settings, Mapping):
        pairs = [(str(key), value) for key, value in settings.items()]
    else:
        pairs = [(str(number), value) for number, value in enumerate(settings, 1)]
    flat: dict[str, Any] = {}
    for key, value in pairs:
        if isinstance(value, Mapping) or _holds_sections(value):
            flat |= _flat(value, before=f"{before}{key}.")
        else:
            # as JSON gives it back
            flat[f"{before}{key}"] = list(value) if isinstance(value, tuple) else value
    return flat


def _holds_sections(value: Any) -> bool:
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return is_list and bool(value) and all(isinstance(entry, Mapping) for entry in value)
