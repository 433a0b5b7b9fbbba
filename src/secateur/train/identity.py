"""Which run a checkpoint belongs to: one of another model, data or settings is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from secateur.core.errors import TrainError


@dataclass(frozen=True, slots=True)
class Identity:
    """fingerprint: of the model as it was given, before anything was cut. batches: an epoch has,
    None when unknown. settings: those that decide the numbers. companions: their classes."""

    fingerprint: str
    batches: int | None
    settings: Mapping[str, Any]
    companions: tuple[str, ...] = ()

    def tree(self) -> dict[str, Any]:
        """As a part of a checkpoint."""
        return {
            "fingerprint": self.fingerprint,
            "batches": self.batches,
            "settings": dict(self.settings),
            "companions": list(self.companions),
        }

    def check(self, tree: Mapping[str, Any], folder: Path | None) -> None:
        """Raises: TrainError that says in what the checkpoint's run differs from this one."""
        where = f"choose another checkpoint_dir, or remove {folder} to start again"
        if tree["fingerprint"] != self.fingerprint:
            raise TrainError(f"the checkpoint was made for another model; {where}")
        if tree["batches"] != self.batches:
            raise TrainError(
                f"the checkpoint was made with {tree['batches']} batches an epoch, the data now "
                f"has {self.batches}; give the same data, {where}"
            )
        changed = [
            f"{key} was {tree['settings'].get(key)}, is {value}"
            for key, value in self.settings.items()
            if tree["settings"].get(key) != value
        ]
        if tree["companions"] != list(self.companions):
            before, now = (", ".join(c) or "none" for c in (tree["companions"], self.companions))
            changed.append(f"companions were {before}, are {now}")
        if changed:
            raise TrainError(
                f"the checkpoint was made with other settings ({'; '.join(changed)}); resume with "
                f"the same ones, {where}"
            )
