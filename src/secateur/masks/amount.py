"""How much goes: the arguments of a masking, checked, and what they mean for its targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from secateur.masks.keys import key_of
from secateur.masks.patterns import Pattern
from secateur.masks.scores import Asked
from secateur.masks.targets import Target

SCOPES = ("global", "layer")
Sparsity = float | Mapping[str, float]


@dataclass(frozen=True)
class Amount:
    """How much goes: a share, globally or of each layer, or what is at most a threshold."""

    sparsity: Sparsity | None
    threshold: float | None
    scope: str

    @property
    def is_by_layer(self) -> bool:
        """Whether each tensor is ranked for itself."""
        return self.scope == "layer" or isinstance(self.sparsity, Mapping)

    def share(self, name: str = "") -> float:
        """Of what goes of a tensor, or of all together."""
        assert self.sparsity is not None
        return self.sparsity[name] if isinstance(self.sparsity, Mapping) else self.sparsity


def settings_of(asked: Asked, amount: Amount) -> dict[str, Any]:
    """What a plan remembers of them."""
    sparsity = amount.sparsity
    return {
        "sparsity": dict(sparsity) if isinstance(sparsity, Mapping) else sparsity,
        "threshold": amount.threshold,
        "criterion": asked.criterion,
        "scope": amount.scope,
    }


def how_many(total: int, share: float, *, masked: int, where: str) -> int:
    """How many of `total` go. Raises: ValueError when more are masked already."""
    count = round(share * total)
    if masked > count:
        raise ValueError(
            f"{where} is masked to {masked / total:.2%} already, more than the sparsity of "
            f"{share:.2%} that is asked for; masks only grow. Call unmask_(model) first to choose "
            "among all weights again"
        )
    return count


def threshold_key(threshold: float, asked: Asked, *, dtype: torch.dtype, signed: bool) -> int:
    """The key of a threshold among scores of a type."""
    if not signed:
        scale = threshold if asked.rule.POWER == 1 else threshold**0.5  # a square is ranked
        return key_of(scale, dtype)
    key = key_of(abs(threshold), dtype)
    return key if threshold >= 0 else -key


def named(wanted: Sequence[Target], sparsity: Mapping[str, float]) -> list[Target]:
    """The targets that a mapping names. Raises: ValueError for a name that none has."""
    known = {target.name: target for target in wanted}
    for name in sparsity:
        if name not in known:
            raise ValueError(
                f"sparsity names {name!r}, which is no weight that can be masked; there are: "
                f"{', '.join(list(known)[:6])}{', ...' if len(known) > 6 else ''}"
            )
    return [known[name] for name in known if name in sparsity]


def fits(target: Target, form: Pattern) -> bool:
    """Whether a pattern fits a target's inputs."""
    return not form.of or target.parameter.shape[target.input_dim] % form.of == 0


def misfit(target: Target, form: Pattern) -> str:
    """What to say of a target that a pattern does not fit."""
    size = target.parameter.shape[target.input_dim]
    return (
        f"{target.name} has {size} inputs, no multiple of {form.of}, and is left without a mask "
        f"under pattern {form.text!r}"
    )


def check_arguments(form: Pattern, amount: Amount) -> None:
    """Raises: ValueError for arguments that contradict each other or lie out of range."""
    if amount.scope not in SCOPES:
        raise ValueError(f"unknown scope {amount.scope!r}; there are: {', '.join(SCOPES)}")
    sparsity, threshold = amount.sparsity, amount.threshold
    if form.sparsity is not None:
        if threshold is not None or sparsity not in (None, form.sparsity):
            raise ValueError(
                f"pattern {form.text!r} itself says how much goes, {form.sparsity:g}; leave "
                "sparsity and threshold out"
            )
        return
    if (sparsity is None) == (threshold is None):
        raise ValueError("give sparsity=0.8 or threshold=0.01, one of them: how much shall be zero")
    shares = sparsity.values() if isinstance(sparsity, Mapping) else [sparsity or 0.0]
    for share in shares:
        if not 0 <= share < 1:
            raise ValueError(f"sparsity is the share of zeros, in [0, 1), not {share}")
    if threshold is not None and not abs(threshold) < float("inf"):
        raise ValueError(f"threshold must be a finite number, not {threshold}")
