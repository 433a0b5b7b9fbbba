"""The stages that a recipe lists under `stages`, one after another: each is one of `prune`, `mask`
and `recover`, with the settings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from secateur.cli.mask_settings import MaskStage
from secateur.cli.prune_settings import PruneStage
from secateur.cli.recovery_settings import Recovery


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One entry of a recipe's `stages`: exactly one of these."""

    prune: PruneStage | None = None
    mask: MaskStage | None = None
    recover: Recovery | None = None

    def __post_init__(self) -> None:
        given = [item.name for item in fields(self) if getattr(self, item.name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a stage is one of prune, mask and recover, not {' and '.join(given) or 'none'}; "
                'write one `- ` for each, for example `- mask: {pattern: "2:4"}`'
            )

    @property
    def name(self) -> str:
        """The word that it is listed under, and the file of `stages/` that does it."""
        return next(item.name for item in fields(self) if getattr(self, item.name) is not None)

    @property
    def settings(self) -> Any:
        """What is said of it."""
        return getattr(self, self.name)

    @property
    def trains(self) -> bool:
        """Whether a recipe that lists it must name data."""
        if self.recover is not None or self.settings.recover is not None:
            return True
        return self.prune is not None and (self.prune.needs_data or self.prune.loop is not None)
