"""How a step is taken, as far as bytes know it: types, optimizer, what the backward recomputes."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.engines.simulator.workload import FLOAT

STATES = {"sgd": 1, "adamw": 2, "none": 0}
"""Numbers that an optimizer keeps for each parameter; sgd with momentum."""


@dataclass(frozen=True, slots=True)
class Precision:
    """Bytes of an element: stored weights, what FSDP2 gathers, gradients on their way, activations.

    copies: bytes for each parameter of the copies that autocast makes and the backward keeps.
    """

    weights: int = FLOAT
    gathered: int = FLOAT
    reduced: int = FLOAT
    activations: int = FLOAT
    copies: int = 0


PRECISIONS = {
    "float32": Precision(),
    # autocast: weights stay, are sent and are reduced as they are, and are copied to compute with
    "bfloat16": Precision(activations=2, copies=2),
    # FSDP2's mixed precision: weights are gathered in bfloat16, gradients reduced in float32
    "bfloat16-gathered": Precision(gathered=2, activations=2),
}


@dataclass(frozen=True, slots=True)
class Training:
    """accumulate: batches for one step. recompute: the backward runs each unit's forward again
    instead of keeping its activations. reshard: FSDP2 gives a unit's weights back after its
    forward and gathers them again for its backward. sync_batch_norm: batch norm takes its
    statistics over the batches of all ranks."""

    precision: Precision = PRECISIONS["float32"]
    optimizer: str = "sgd"
    accumulate: int = 1
    recompute: bool = False
    reshard: bool = True
    sync_batch_norm: bool = True

    def __post_init__(self) -> None:
        if self.optimizer not in STATES:
            raise ValueError(f"optimizer {self.optimizer!r}: there are {', '.join(STATES)}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate}: at least one batch a step")
