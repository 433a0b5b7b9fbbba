"""What is zero of a model that many ranks share: a `MaskPlan` of which each rank holds its part.

Its numbers and its hash are those of the whole, the same on every rank and in one process.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secateur.core.shards import Shard
from secateur.masks.statistics import LayerSparsity


@dataclass(frozen=True, eq=False)
class ShardMask:
    """bits: of the elements that lie here, eight to a byte. zeros, digest: of the whole mask."""

    shard: Shard
    bits: NDArray[np.uint8]
    zeros: int
    digest: str


@dataclass(frozen=True)
class ShardedMaskPlan:
    """Which weights stay, of those that lie on this rank.

    fingerprint, settings, notes: as of `MaskPlan`. kept: by parameter.
    """

    fingerprint: str
    kept: Mapping[str, ShardMask]
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def layers(self) -> tuple[LayerSparsity, ...]:
        """How sparse each masked parameter is as a whole."""
        return tuple(LayerSparsity(n, m.shard.weights, m.zeros) for n, m in self.kept.items())

    @property
    def sparsity(self) -> float:
        """Share of zeros among all weights that carry a mask."""
        weights = sum(layer.weights for layer in self.layers)
        return sum(layer.zeros for layer in self.layers) / max(weights, 1)

    @property
    def digest(self) -> str:
        """What `MaskPlan.digest` is for the same masks in one process."""
        return plan_digest(self.fingerprint, {name: m.digest for name, m in self.kept.items()})

    def to_json(self) -> dict[str, Any]:
        """A small description, the same on every rank."""
        masks = {
            name: {"shape": list(m.shard.shape), "zeros": m.zeros, "digest": m.digest}
            for name, m in self.kept.items()
        }
        return {
            "fingerprint": self.fingerprint,
            "sparsity": self.sparsity,
            "digest": self.digest,
            "masks": masks,
            "settings": dict(self.settings),
            "notes": list(self.notes),
        }


def plan_digest(fingerprint: str, digests: Mapping[str, str]) -> str:
    """The hash of a plan for a model, from those of its masks by name."""
    body = json.dumps([fingerprint, list(digests.items())])
    return hashlib.sha256(body.encode()).hexdigest()
