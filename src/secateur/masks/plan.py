"""What is zero: the plan of a masking, a value to read, compare, save and apply again.

It is saved as safetensors with one bit a weight and its description as JSON; nothing is pickled.
Like `core.plan.Plan` it carries the fingerprint of the model that it was made for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import nn

from secateur.core.atomic import replacing
from secateur.core.errors import PlanMismatchError, StorageError
from secateur.masks.dense import dense_fingerprint
from secateur.masks.packed import PackedMask, PackedMasks
from secateur.masks.parametrization import attach_
from secateur.masks.sharded_plan import plan_digest
from secateur.masks.statistics import LayerSparsity
from secateur.masks.targets import targets

FORMAT = 1
_KEY = "secateur.masks"


@dataclass(frozen=True)
class MaskPlan:
    """Which weights stay.

    fingerprint: of the model without masks. kept: for each masked parameter by name (tied ones
    once) a boolean tensor, true where the weight stays, unpacked when it is asked for. settings:
    how it was made. notes: what the user should know, such as tensors that a pattern does not fit.
    """

    fingerprint: str
    kept: PackedMasks
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[LayerSparsity, ...]:
        """How sparse each masked parameter is."""
        masks = self.kept.masks.items()
        return tuple(LayerSparsity(name, mask.weights, mask.zeros) for name, mask in masks)

    @property
    def sparsity(self) -> float:
        """Share of zeros among all weights that carry a mask."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.zeros for layer in self.layers) / max(weights, 1)

    @property
    def digest(self) -> str:
        """A hash of the model's fingerprint and of what stays: two plans that mask alike have the
        same, one of shards included, on every rank."""
        masks = self.kept.masks.items()
        return plan_digest(self.fingerprint, {name: mask.digest for name, mask in masks})

    def diff(self, other: MaskPlan) -> dict[str, tuple[int, int]]:
        """By parameter: how many weights only this plan keeps, and how many only the other.

        Parameters on which both agree are left out; one without a mask keeps all.
        Raises: PlanMismatchError when they are plans for different models.
        """
        if self.fingerprint != other.fingerprint:
            raise PlanMismatchError(
                "these mask plans were made for different models and cannot be compared"
            )
        found = {}
        for name in (*self.kept, *(n for n in other.kept if n not in self.kept)):
            ours, theirs = self.kept.get(name), other.kept.get(name)
            if ours is None or theirs is None:
                some = theirs if ours is None else ours
                assert some is not None
                all_of_it = torch.ones_like(some)
                ours, theirs = (all_of_it if k is None else k for k in (ours, theirs))
            counts = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
            if any(counts):
                found[name] = counts
        return found

    def apply_(self, model: nn.Module) -> None:
        """Mask a model as the plan says; masks that it has on the same parameters are replaced.

        Raises: PlanMismatchError when the plan was made for another model.
        """
        if dense_fingerprint(model) != self.fingerprint:
            raise PlanMismatchError(
                f"the mask plan was made for another model than this {type(model).__name__}: "
                "names, shapes or classes of its modules differ; build the model that was masked, "
                "or make a plan for this one with mask_"
            )
        if not self.kept:
            return
        by_name = {target.name: target for target in targets(model)}
        for name, kept in self.kept.items():
            attach_(by_name[name].places, kept.to(by_name[name].parameter.device))

    def to_json(self) -> dict[str, Any]:
        """A small description: everything but the bits, of which there is a hash."""
        return {
            "format": FORMAT,
            "fingerprint": self.fingerprint,
            "sparsity": self.sparsity,
            "masks": self.kept.about(),
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }

    def save(self, path: str | Path) -> None:
        """Write the plan beside `path`, then rename it into place. Raises: StorageError."""
        bits = {name: mask.bits for name, mask in self.kept.masks.items()}
        metadata = {_KEY: json.dumps(self.to_json(), sort_keys=True)}
        with replacing(Path(path)) as beside:
            try:
                save_file(bits, beside, metadata=metadata)
            except SafetensorError as error:
                raise OSError(str(error)) from error

    @classmethod
    def load(cls, path: str | Path) -> MaskPlan:
        """Read a saved plan and check every mask against its hash.

        Raises: StorageError for a file that is damaged or no mask plan; FileNotFoundError.
        """
        try:
            with safe_open(path, framework="np") as file:
                body = json.loads((file.metadata() or {})[_KEY])
                if body["format"] != FORMAT:
                    raise StorageError(
                        f"{path} has format {body['format']}, this secateur reads format {FORMAT}; "
                        "make the plan again, or install the secateur that wrote it"
                    )
                kept = PackedMasks(
                    {
                        name: _checked(file.get_tensor(name), about)
                        for name, about in body["masks"].items()
                    }
                )
                return cls(body["fingerprint"], kept, body["settings"], tuple(body["notes"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StorageError(
                f"{path} is not a whole mask plan ({type(error).__name__}: {error}); copy it "
                "again, or make one with mask_(model, sparsity=0.8).save(path)"
            ) from error


def _checked(bits: NDArray[np.uint8], about: Mapping[str, Any]) -> PackedMask:
    mask = PackedMask(tuple(about["shape"]), about["zeros"], bits)
    if mask.about() != about:
        raise ValueError("a mask does not match its checksum")
    return mask
