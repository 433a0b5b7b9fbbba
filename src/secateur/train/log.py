"""The log of a recovery: one row for each epoch, as values and as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Stop = Literal["epochs", "patience"]


@dataclass(frozen=True, slots=True)
class EpochRow:
    """epoch: from 1. step: optimizer steps so far. loss: mean training loss of the epoch.
    metric: of the validation, None without one. lr: of the epoch's last step, first group.
    saving_s: for which the training stood still for checkpoints since the row before."""

    epoch: int
    step: int
    loss: float
    metric: float | None
    lr: float
    seconds: float = field(compare=False)
    saving_s: float = field(compare=False, default=0.0)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class TrainLog:
    """rows: epochs in order. stopped: why it ended. best_epoch: whose weights the metric calls
    best, None without validation. resumed_at: the step at which this call took over, if it did."""

    rows: tuple[EpochRow, ...]
    stopped: Stop
    best_epoch: int | None = None
    best_metric: float | None = None
    resumed_at: int | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[EpochRow]:
        return iter(self.rows)

    def to_jsonl(self) -> str:
        """One JSON object a line, one line an epoch."""
        return to_jsonl(self.rows)


def to_jsonl(rows: tuple[EpochRow, ...] | list[EpochRow]) -> str:
    """Rows as JSON lines, with a final newline unless there are none."""
    return "".join(json.dumps(row.to_json()) + "\n" for row in rows)
