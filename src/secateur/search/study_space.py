"""What a search may choose, and one choice of it.

The first option of each kind is the plain one. With the recovery's own learning rate, at even
shares of the cost, the plain options make the line that the search begins with, and that its
front is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from secateur.core.lookup import find

ONE_SHOT, ITERATIVE = "one_shot", "iterative"
SCHEDULES = (ONE_SHOT, ITERATIVE)
ROOM = 0.75
"""How far below the line the search may go, as a share of the line's last point."""
PLAIN = "fp32"
"""The precision of a model that is left as it was trained."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers between two bounds, both included; log: as many in each factor of ten."""

    low: float
    high: float
    log: bool = False


Options = tuple[Any, ...] | Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What a trial does: `share` of the first cost is left, in the way that the rest says."""

    share: float
    lr: float
    criterion: str
    selector: str
    schedule: str
    distil: bool
    reconstruct: bool
    precision: str

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    @property
    def words(self) -> str:
        """What differs between trials, short.

        >>> Choice(share=0.5, lr=0.02, criterion="l2", selector="global", schedule="one_shot",
        ...     distil=True, reconstruct=False, precision="fp32").words
        'l2, global, one shot, distilled, lr 0.02'
        """
        parts = [self.criterion, self.selector, self.schedule.replace("_", " ")]
        parts += ["fitted"] * self.reconstruct + ["distilled"] * self.distil
        parts += [self.precision] if self.precision != PLAIN else []
        return ", ".join([*parts, f"lr {self.lr:.2g}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """criteria, selectors: files of `criteria/` and `select/`. schedules: "one_shot", and
    "iterative", which cuts in `steps` and recovers after each, in as many epochs in all. distil:
    whether the dense model teaches. reconstruct: whether weights are fitted to the dense layers'
    outputs before the recovery. precisions: names of the task's. shares: bounds of what is left of
    the first cost. lr_factor: how far learning rates go above and below the recovery's own. line:
    so many trials on the line of plain choices, which come first.

    Raises: ValueError for an unknown name or an empty list.
    """

    criteria: tuple[str, ...] = ("l2", "taylor", "output_error")
    selectors: tuple[str, ...] = ("uniform", "global", "knapsack")
    schedules: tuple[str, ...] = (ONE_SHOT, ITERATIVE)
    distil: tuple[bool, ...] = (False, True)
    reconstruct: tuple[bool, ...] = (False, True)
    precisions: tuple[str, ...] = (PLAIN,)
    shares: tuple[float, float] = (0.1, 0.8)
    lr_factor: float = 4.0
    steps: int = 3
    line: int = 5

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, tuple) and len(set(value)) < max(1, len(value)):
                raise ValueError(f"{item.name}={value!r}: list at least one option, each once")
        for name in self.criteria:
            find("secateur.criteria", name, kind="criterion")
        for name in self.selectors:
            find("secateur.select", name, kind="selector")
        for name in self.schedules:
            if name not in SCHEDULES:
                raise ValueError(f"unknown schedule {name!r}; there are: {', '.join(SCHEDULES)}")
        low, high = self.shares
        if not 0 < low < high < 1:
            raise ValueError(f"shares={low:g}, {high:g}: two shares in (0, 1), the smaller first")
        if self.lr_factor < 1 or self.steps < 2 or self.line < 0:
            raise ValueError(
                f"lr_factor={self.lr_factor:g}, steps={self.steps}, line={self.line}: at least 1, "
                "2 and 0"
            )

    def options(self, lr: float) -> dict[str, Options]:
        """What there is to choose, by the name of the choice; only where there is more than one."""
        listed: dict[str, Options] = {
            "share": Range(*self.shares),
            "lr": Range(lr / self.lr_factor, lr * self.lr_factor, log=True),
            **self._listed(),
        }
        return {name: options for name, options in listed.items() if _several(options)}

    def choice(self, chosen: Mapping[str, Any], lr: float) -> Choice:
        """A whole choice: what was chosen, and the plain option of all else."""
        plain = {name: options[0] for name, options in self._listed().items()}
        return Choice(**{"lr": lr, **plain, **chosen})

    def line_shares(self) -> tuple[float, ...]:
        """Shares of the plain trials, even, the largest first; the search may go below the last.

        >>> Space(shares=(0.15, 0.8), line=4).line_shares()
        (0.8, 0.6, 0.4, 0.2)
        """
        low, high = self.shares
        low = min(low / ROOM, (low + high) / 2)  # a point at the bound could hardly be beaten
        steps = max(self.line - 1, 1)
        return tuple(round(high - (high - low) * k / steps, 6) for k in range(self.line))

    def plain(self, share: float, lr: float) -> dict[str, Any]:
        """A point of the line, as the options name it."""
        choice = self.choice({"share": share}, lr)
        return {name: getattr(choice, name) for name in self.options(lr)}

    def is_plain(self, choice: Choice, lr: float) -> bool:
        """Whether a choice lies on the line."""
        return choice.share in self.line_shares() and choice == self.choice(
            {"share": choice.share}, lr
        )

    def _listed(self) -> dict[str, tuple[Any, ...]]:
        return {
            "criterion": self.criteria,
            "selector": self.selectors,
            "schedule": self.schedules,
            "distil": self.distil,
            "reconstruct": self.reconstruct,
            "precision": self.precisions,
        }


def _several(options: Options) -> bool:
    return options.low < options.high if isinstance(options, Range) else len(options) > 1
