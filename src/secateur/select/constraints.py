"""The options of a plan: how units are selected, and how far pruning may go.

A budget says what has to be reached. Every rule here limits how far pruning may go: it stops at
the kept share, at the threshold, at the smallest number of units. Without a budget pruning goes as
far as the rules allow; where a budget cannot be reached within them, that is a `BudgetError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

NORMALISATIONS = ("none", "mean", "max")
TYING = ("min_units", "multiple_of", "tensor_parallel", "uniform_layers", "equal", "threshold")
"""Rules that say which counts may stand, alone or together."""
RULES = ("keep", "sparsity", *TYING, "keep_modules", "groups")
"""Rules that limit how far pruning may go."""


@dataclass(frozen=True, slots=True)
class Constraints:
    """How a plan is made, besides its budget.

    selector: name of a file of `select/`. normalise: what each group's scores are divided by
    before groups are compared: "none", "mean" or "max"; scores that are changes of the loss, as
    "taylor" gives, need none. keep: share of units that stays, of each group for "uniform", of
    all for "global"; or of single groups, as a mapping from ids or glob patterns, where groups
    that nothing matches stay whole, an id counts before the patterns, and of these the last that
    matches. sparsity: one minus keep. threshold: units with a (raw) score of at least this stay.
    min_units: no group gets smaller than this. multiple_of: layers' widths are multiples of this,
    or the group stays whole; any number of heads does whose width is one. tensor_parallel: so
    many devices can share the sharded layers equally: whole heads, and of every other dimension of
    a weight a multiple. uniform_layers: groups at the same place of repeated layers, of equal
    size, keep equal counts. keep_modules: glob patterns of modules whose shape stays as it is.
    equal: glob patterns; groups of equal size that one pattern matches (by their id or the module
    that makes them) keep equal counts. groups: ids or glob patterns of the only groups to prune.
    include_structural: prune structural groups too. A single pattern may stand alone; all become
    tuples.
    """

    selector: str = "uniform"
    normalise: str = "mean"
    keep: float | Mapping[str, float] | None = None
    sparsity: float | None = None
    threshold: float | None = None
    min_units: int = 1
    multiple_of: int = 1
    tensor_parallel: int = 1
    uniform_layers: bool = False
    keep_modules: Sequence[str] = ()
    equal: Sequence[str] = ()
    groups: Sequence[str] | None = None
    include_structural: bool = False
    blocks: float | None = None

    def __post_init__(self) -> None:
        for name in ("keep_modules", "equal", "groups"):
            object.__setattr__(self, name, _patterns(getattr(self, name)))
        if self.normalise not in NORMALISATIONS:
            raise ValueError(f"normalise={self.normalise!r}: must be one of {NORMALISATIONS}")
        if self.keep is not None and self.sparsity is not None:
            raise ValueError(
                f"keep={self.keep!r} and sparsity={self.sparsity:g} say the same thing twice "
                "(sparsity is 1 - keep); give one of them"
            )
        if isinstance(self.keep, Mapping):
            object.__setattr__(self, "keep", dict(self.keep))
        for share, name in self._shares():
            if not 0 < share <= 1:
                raise ValueError(f"{name}={share:g}: the share that stays must be in (0, 1]")
        if self.blocks is not None and not (0 < self.blocks < 1 or self.blocks in range(1, 10**6)):
            raise ValueError(f"blocks={self.blocks:g}: a share below 1, or a whole number")
        if self.sparsity is not None and not 0 <= self.sparsity < 1:
            raise ValueError(f"sparsity={self.sparsity:g}: the share that goes must be in [0, 1)")
        for name in ("min_units", "multiple_of", "tensor_parallel"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")

    @property
    def deepest(self) -> float:
        """The deepest level that `keep` or `sparsity` allows."""
        if self.sparsity is not None:
            return self.sparsity
        return 1 - self.keep if isinstance(self.keep, float | int) else 1.0

    @property
    def has_target(self) -> bool:
        """Whether a rule alone says how much to remove."""
        return not (self.keep is None and self.sparsity is None and self.threshold is None)

    def relaxed(self) -> dict[str, Constraints]:
        """For each rule in force, as the user wrote it: the constraints without it."""
        default = Constraints()
        return {
            f"{name}={_shown(getattr(self, name))}": replace(self, **{name: getattr(default, name)})
            for name in RULES
            if getattr(self, name) != getattr(default, name)
        }

    def to_json(self) -> dict[str, Any]:
        """For a plan's settings: plain JSON values, so that reading gives back what was written.

        A mapping becomes pairs: the order of patterns matters, and that of JSON's keys is lost.
        """
        return {name: _plain(value) for name, value in asdict(self).items()}

    def _shares(self) -> Iterator[tuple[float, str]]:
        """Every share in `keep`, and what to call it."""
        if isinstance(self.keep, Mapping):
            yield from ((share, f"keep[{pattern!r}]") for pattern, share in self.keep.items())
        elif self.keep is not None:
            yield self.keep, "keep"


def _shown(value: object) -> str:
    if isinstance(value, dict) and len(value) > 3:
        return f"{{{len(value)} patterns}}"
    return f"{value:g}" if isinstance(value, float) else repr(value)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [[key, entry] for key, entry in value.items()]
    return list(value) if isinstance(value, tuple) else value


def _patterns(value: Sequence[str] | None) -> tuple[str, ...] | None:
    if value is None or isinstance(value, tuple):
        return value
    return (value,) if isinstance(value, str) else tuple(value)
