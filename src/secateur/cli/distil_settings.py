"""What a recipe can say of a teacher: which one, and what of it is followed.

Each section is a term of `train.distilled`, with the term's own fields and defaults; where none is
given, the logits are followed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from secateur.cli.flags import flag

DENSE = "dense"
Layers = str | Sequence[str] | Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class LogitsSettings:
    """Softened class probabilities; see `train.Logits`."""

    weight: float = 0.5
    temperature: float = 4.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, not {self.temperature}")


@dataclass(frozen=True, kw_only=True)
class OutputsSettings:
    """The outputs' own numbers; see `train.Outputs`."""

    weight: float = 1.0
    kind: Literal["mse", "cosine"] = "mse"


@dataclass(frozen=True, kw_only=True)
class LayersSettings:
    """Hidden layers; see `train.Features` and `train.AttentionTransfer`."""

    layers: Layers = "same"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class AttentionSettings:
    """A transformer's attention; see `train.AttentionMaps`."""

    layers: Literal["all", "last"] = "all"
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class DistilSettings:
    """teacher: "dense" for the model that is pruned, or any model, with `weights` as for it. hard:
    weight of the labels. The rest are what is followed."""

    teacher: str = flag(DENSE, "dense, or a model as --model takes it")
    weights: str | None = None
    hard: float = flag(0.5, "weight of the labels beside the teacher")
    logits: LogitsSettings | None = None
    outputs: OutputsSettings | None = None
    features: LayersSettings | None = None
    attention_maps: AttentionSettings | None = None
    attention_transfer: LayersSettings | None = None

    def __post_init__(self) -> None:
        if self.hard < 0:
            raise ValueError(f"hard is a weight of at least 0, not {self.hard}")
        if self.teacher == DENSE and self.weights is not None:
            raise ValueError(
                "weights are of another teacher than dense; name it, or leave them out"
            )
