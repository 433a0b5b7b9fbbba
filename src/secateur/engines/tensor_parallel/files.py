"""Checkpoints of a training whose ranks share the model out: a safetensors file of each rank.

What is shared out differs from rank to rank in shape too, so a checkpoint is read by as many ranks
as wrote it, under the same plan. The trained model itself is saved whole.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.core.errors import EngineError, StorageError
from secateur.core.world import World

LAYOUT = "ranks.json"


@dataclass(frozen=True, slots=True)
class RankFiles:
    """world: of all ranks. plan: the hash of the tensor-parallel plan. plain: whether each rank
    holds ordinary tensors, not those of FSDP2."""

    world: World
    plan: str
    plain: bool = True

    def write(self, folder: Path, tensors: Mapping[str, Tensor]) -> None:
        """Write what this rank holds. Raises: StorageError on every rank when one could not."""
        self._check()
        failure = ""
        try:
            own = {name: tensor.detach().clone() for name, tensor in tensors.items()}
            save_file(own, folder / self._name)
            if self.world.rank == 0:
                (folder / LAYOUT).write_text(json.dumps(self._layout()), encoding="utf-8")
        except OSError as error:
            failure = error.strerror or str(error)
        failures = self.world.gather(failure, what="the parts of a checkpoint")
        for rank, reason in enumerate(failures):
            if reason:
                raise StorageError(
                    f"rank {rank} could not write its part of {folder}: {reason}; the checkpoints "
                    "before it are still there. Free some space or choose another place, then run "
                    "the same command again"
                )

    def read(self, folder: Path, sharded: Iterable[str]) -> dict[str, Tensor]:
        """What this rank wrote. Raises: StorageError for another layout of ranks."""
        self._check()
        try:
            layout = json.loads((folder / LAYOUT).read_text(encoding="utf-8"))
        except OSError:
            layout = None
        if layout != self._layout():
            raise StorageError(
                f"{folder} was not written by {self.world.size} ranks that share the model out as "
                "these do; start as many ranks as before with the same settings, or remove it"
            )
        return load_file(folder / self._name)

    def lay_out(self, tensor: Tensor) -> Tensor:
        """Raises: EngineError."""
        raise EngineError(
            "the checkpoint was written by one process or without tensor parallelism, and cannot "
            "be gone on from with it; go on as before, or start anew in another checkpoint_dir"
        )

    def is_sharded(self, tensor: Tensor) -> bool:
        """Each rank's tensors are its own."""
        return True

    @property
    def _name(self) -> str:
        return f"rank_{self.world.rank:05d}.safetensors"

    def _layout(self) -> dict[str, object]:
        return {"ranks": self.world.size, "plan": self.plan}

    def _check(self) -> None:
        if not self.plain:
            raise EngineError(
                "a training under tensor parallelism within FSDP2 writes no checkpoints: give no "
                "checkpoint_dir, or use DDP around it"
            )
