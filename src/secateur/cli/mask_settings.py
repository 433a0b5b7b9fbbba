"""What can be said of a `mask` stage: how much is zero, which weights, and how it comes about.

The words are those of `masks.mask_`, `masks.GradualMasking` and `masks.DynamicSparsity`; where they
count steps, a recipe says shares of the training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from secateur.cli.recovery_settings import Recovery, check_ordered
from secateur.masks.patterns import parse
from secateur.masks.scores import Asked


@dataclass(frozen=True, kw_only=True)
class GradualMasks:
    """The sparsity rises from `initial` while training, every `interval` optimizer steps between
    two shares of all steps; power 3 is the cubic of Zhu & Gupta."""

    initial: float = 0.0
    begin: float = 0.0
    end: float = 0.75
    interval: int = 100
    power: float = 3.0

    def __post_init__(self) -> None:
        check_ordered("begin", self.begin, "end", self.end)


@dataclass(frozen=True, kw_only=True)
class DynamicMasks:
    """The masks move while training, every `interval` steps until the share `end` of all: RigL;
    grow random and decay constant is SET."""

    end: float = 0.75
    interval: int = 100
    fraction: float = 0.3
    grow: Literal["gradient", "random"] = "gradient"
    decay: Literal["cosine", "constant"] = "cosine"

    def __post_init__(self) -> None:
        check_ordered("begin", 0.0, "end", self.end)


@dataclass(frozen=True, kw_only=True)
class MaskStage:
    """Single weights are held at zero: at once, more and more while training, or moving.

    erdos_renyi: thin layers stay denser than thick ones. The rest is as in `mask_`.
    """

    pattern: str = "unstructured"
    sparsity: float | Mapping[str, float] | None = None
    threshold: float | None = None
    criterion: str = "l1"
    scope: Literal["global", "layer"] = "global"
    erdos_renyi: bool = False
    skip: Sequence[str] = ()
    calibration: int = 512
    gradual: GradualMasks | None = None
    dynamic: DynamicMasks | None = None
    recover: Recovery | None = None

    def __post_init__(self) -> None:
        own = parse(self.pattern).sparsity
        _ = Asked(self.criterion).rule  # raises where there is none
        if own is not None and (self.sparsity is not None or self.threshold is not None):
            raise ValueError(
                f"pattern {self.pattern!r} itself says how much goes, {own:g}; leave sparsity and "
                "threshold out"
            )
        if own is None and (self.sparsity is None) == (self.threshold is None):
            raise ValueError(
                "say how much shall be zero: sparsity: 0.8 or threshold: 0.01, one of them, or "
                'pattern: "2:4"'
            )
        if isinstance(self.sparsity, float) and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity is the share of zeros, in [0, 1), not {self.sparsity}")
        self._check_schedule()

    def _check_schedule(self) -> None:
        schedules = [name for name in ("gradual", "dynamic") if getattr(self, name) is not None]
        if len(schedules) == 2:
            raise ValueError("gradual and dynamic are two schedules of one mask; leave one out")
        whole = isinstance(self.sparsity, float)
        if "gradual" in schedules and not whole:
            raise ValueError(
                "gradual raises one sparsity of the whole model; give sparsity: 0.8, without N:M "
                "pattern, threshold or shares by name"
            )
        if self.erdos_renyi and not (whole and "gradual" not in schedules):
            raise ValueError(
                "erdos_renyi spreads one sparsity over the layers; give sparsity: 0.9, and leave "
                "gradual out"
            )
        if "dynamic" in schedules and self.pattern != "unstructured":
            raise ValueError(
                f"dynamic moves single weights; leave pattern {self.pattern!r} out, or dynamic"
            )
        if schedules and self.recover is None:
            raise ValueError(
                f"{schedules[0]} masks while training; add for example `recover: {{epochs: 5}}`"
            )
