"""The values of pruning while training: what it is told, and what it says of each cut."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from secateur.core.budget import Budget, Limit
from secateur.train.remaining import REMAINING

RUNNING = "running_taylor"


@dataclass(frozen=True, slots=True)
class GradualSettings:
    """budget: what the last cut meets, one limit of the dense model's cost. cuts: how many there
    are, the first after the share `begin` of all steps and the last after `end`; what remains falls
    along `schedule`, "cubic" or "geometric".

    criterion: a file of `criteria/` ("gradient" and its like look at calibration data), or
    "running_taylor", which averages the training's own gradients at no cost in passes, with a
    memory of about `memory` steps. options: fields of
    `secateur.select.constraints.Constraints`, on top of a global selection; shares in `keep` are of
    the dense model, and no cut goes below them. seed: of the random criterion. huggingface: cut
    only what a transformers model's configuration can express, so that plain `from_pretrained`
    loads what is saved.
    """

    budget: str = "macs=50%"
    cuts: int = 8
    begin: float = 0.05
    end: float = 0.5
    schedule: str = "cubic"
    criterion: str = RUNNING
    memory: int = 50
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    huggingface: bool = False

    def __post_init__(self) -> None:
        if self.schedule not in REMAINING:
            raise ValueError(
                f"unknown schedule {self.schedule!r}; there are: {', '.join(REMAINING)}"
            )
        if not 0 <= self.begin <= self.end <= 1:
            raise ValueError(
                f"begin={self.begin:g} and end={self.end:g} are shares of all steps in their order"
            )
        if self.cuts < 1 or self.memory < 1:
            raise ValueError("cuts and memory must be at least 1")
        limits = Budget.parse(self.budget).limits
        if len(limits) != 1:
            raise ValueError(
                f"budget {self.budget!r}: pruning goes toward one limit, for example macs=50%"
            )

    @property
    def limit(self) -> Limit:
        """The one limit of the budget."""
        return Budget.parse(self.budget).limits[0]

    def cuts_due(self, step: int, total: int) -> int:
        """How many cuts are due once so many of `total` steps are taken.

        >>> settings = GradualSettings(cuts=3, begin=0.2, end=0.6)
        >>> [settings.cuts_due(step, 10) for step in (1, 2, 3, 4, 6, 10)]
        [0, 1, 1, 2, 3, 3]
        """
        apart = (self.end - self.begin) / max(1, self.cuts - 1)
        # rounded: the last of them must fall on `end` itself, whatever binary fractions make of it
        places = [round((self.begin + k * apart) * total) for k in range(self.cuts)]
        return sum(step >= max(1, place) for place in places)

    def remaining(self, cut: int, target: float) -> float:
        """The fraction of the dense cost that remains after cut number `cut`, from 1."""
        return REMAINING[self.schedule](cut / self.cuts, target=target)


@dataclass(frozen=True, slots=True)
class CutRow:
    """One cut. step, samples: of the training so far. asked, remaining: fraction of the dense cost
    in the budget's metric. macs: of one sample. overhead_s: wall seconds of tracing, scoring,
    planning and cutting."""

    step: int
    samples: int
    asked: float
    remaining: float
    macs: float
    params: int
    overhead_s: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class GradualLog:
    """What pruning while training came to. macs, params: of the dense model, macs of one sample.
    samples: of the whole training. plans: JSON, in order, each for the model that the one before
    makes."""

    macs: float
    params: int
    samples: int
    rows: tuple[CutRow, ...]
    plans: tuple[str, ...]

    @property
    def macs_spent(self) -> float:
        """MACs of all forwards of the training, at the widths that the model had at each time."""
        spent, since, macs = 0.0, 0, self.macs
        for row in self.rows:
            spent += (row.samples - since) * macs
            since, macs = row.samples, row.macs
        return spent + (self.samples - since) * macs

    @property
    def macs_dense(self) -> float:
        """MACs that the dense model would have spent on the same samples."""
        return self.samples * self.macs

    @property
    def overhead_s(self) -> float:
        """Wall seconds spent on deciding and cutting."""
        return sum(row.overhead_s for row in self.rows)

    def to_jsonl(self) -> str:
        """One JSON object a line, one line a cut."""
        return "".join(json.dumps(asdict(row)) + "\n" for row in self.rows)
