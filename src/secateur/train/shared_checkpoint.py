"""Checkpoints of a training that several ranks may share: what is held for writing, and the newest.

One folder, in which each rank writes its part (see `checkpoint_writes`), and which any number of
ranks reads. It appears by one rename, with the size and checksum of every file in its manifest.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from secateur.core.errors import StorageError
from secateur.core.world import World
from secateur.engines.training import FilePart, Parallel
from secateur.train.checkpoint import (
    TENSORS,
    drop_leftovers,
    newest_whole,
    path_of,
    read_state,
)
from secateur.train.checkpoint_writes import SHARDED, PartsWrite, WholeWrite
from secateur.train.packing import refer, unpack
from secateur.train.staging import Staging, copies
from secateur.train.writer import Write


@dataclass(frozen=True, slots=True)
class Shelf:
    """Where checkpoints go. staging: None where the tensors are copied for each checkpoint anew."""

    folder: Path
    parallel: Parallel
    staging: Staging | None = None

    def held(
        self,
        tree: Any,
        *,
        number: int,
        lent: tuple[str, ...] = (),
        then: Callable[[], object] = lambda: None,
    ) -> Write:
        """`tree` as it is now, to be written as checkpoint `number`; whoever trains may go on.

        Every rank calls it, when no write is under way. lent: see `Staging`. then: what rank 0
        does when the checkpoint is there.
        Raises: TrainError for what cannot be written down, StorageError, EngineError.
        """
        parallel, (body, tensors) = self.parallel, refer(tree)
        rank, files = parallel.world.rank, parallel.files
        if files is None:
            own = self._still(tensors, lent) if rank == 0 else {}
            return WholeWrite(self.folder, number, body, own, rank, then)
        sharded = [name for name, tensor in tensors.items() if files.is_sharded(name, tensor)]
        parts = self._still_parts(files.parts(tensors), lent)
        temporary = _begun(self.folder, path_of(self.folder, number), parallel.world)
        return PartsWrite(
            self.folder, number, temporary, body, sharded, parts, parallel.world, then
        )

    def _still(self, tensors: Mapping[str, Tensor], lent: tuple[str, ...]) -> dict[str, Tensor]:
        return copies(tensors) if self.staging is None else self.staging.hold(tensors, lent=lent)

    def _still_parts(self, parts: Sequence[FilePart], lent: tuple[str, ...]) -> list[FilePart]:
        """All at once, because the buffers are filled once for a checkpoint."""
        flat = {f"{p.name}/{name}": tensor for p in parts for name, tensor in p.tensors.items()}
        still = self._still(flat, tuple(f"{p.name}/{begin}" for p in parts for begin in lent))
        return [
            replace(p, tensors={name: still[f"{p.name}/{name}"] for name in p.tensors})
            for p in parts
        ]


def latest(folder: Path, parallel: Parallel, *, parameters: Collection[str]) -> Any | None:
    """The tree of the newest whole checkpoint, the same on every rank; None when there is none.

    It may have been written by another number of ranks, or by another kind of `parallel`.
    parameters: names of those that are sharded where any are.
    Raises: TrainError when every one of them is damaged; EngineError.
    """
    world, files = parallel.world, parallel.files
    path = newest_whole(folder) if world.rank == 0 else None
    if world.rank == 0:
        drop_leftovers(folder)
    name = world.first(None if path is None else path.name, what="the newest checkpoint")
    if name is None:
        return None
    path = folder / name
    if (path / SHARDED).exists():
        sharded = json.loads((path / SHARDED).read_text(encoding="utf-8"))
        tensors = _whole(path) if files is None else files.read(path, sharded)
    else:
        tensors = load_file(path / TENSORS)
        if files is not None:
            for key, tensor in tensors.items():
                own = _is_of_parameter(key, tensor, parameters)
                tensors[key] = files.lay_out(key, tensor, of_parameter=own)
    return unpack(read_state(path), tensors)


def _whole(path: Path) -> dict[str, Tensor]:
    from secateur.engines.shard_files import read_whole

    return read_whole(path)


def _is_of_parameter(key: str, tensor: Tensor, parameters: Collection[str]) -> bool:
    """Whether a tensor of a checkpoint has a parameter's shape: its value, its average, or what an
    optimizer keeps of it. Keys are paths, and names of parameters have no slash."""
    kept = key.startswith("optimizer/state/") and tensor.ndim > 0
    return kept or key.rpartition("/")[2] in parameters


def _begun(folder: Path, path: Path, world: World) -> Path:
    """The folder that becomes `path`, made by rank 0. Raises: StorageError on every rank."""
    name, refused = "", ""
    if world.rank == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            name = tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder)
            Path(name).chmod(0o755)
        except OSError as error:
            refused = (
                f"could not write {path}: {error.strerror or error}; free some space or choose "
                "another place, then run the same command again"
            )
    name, refused = world.first([name, refused], what="where a checkpoint is written")
    if refused:
        raise StorageError(refused)
    return Path(name)
