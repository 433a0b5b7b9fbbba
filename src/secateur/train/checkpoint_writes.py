"""What the ranks of a training write of one checkpoint; `Writer` says when.

Where every rank holds everything, rank 0 writes what a single process writes. Where parameters are
sharded, every rank writes files of what it holds into a hidden folder, with their checksums beside
them; rank 0 makes the manifest of all of them and renames the folder.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from secateur.core.errors import StorageError
from secateur.core.world import World
from secateur.engines.training import FilePart
from secateur.train.checkpoint import (
    checksum,
    drop_old,
    flush,
    path_of,
    write_checkpoint,
    write_manifest,
    write_state,
    write_tensors,
)

SHARDED = "sharded.json"
"""Which of the tensors are sharded; a checkpoint without it is one of a single process."""
SUMS = ".sums-{:05d}.json"
"""The checksums of a rank's files, until they are in the manifest."""


@dataclass(frozen=True, slots=True)
class WholeWrite:
    """By rank 0. then: what it does when the checkpoint is there."""

    folder: Path
    number: int
    body: Any
    tensors: Mapping[str, Tensor]
    rank: int
    then: Callable[[], object]

    def write(self) -> None:
        """All of it. Raises: StorageError."""
        if self.rank == 0:
            write_checkpoint(self.folder, self.body, self.tensors, number=self.number)
            self.then()

    def publish(self) -> None:
        """It is visible."""

    def is_whole(self) -> bool:
        """Nobody else has a part."""
        return True

    def drop(self) -> None:
        """What failed left nothing."""


@dataclass(frozen=True, slots=True)
class PartsWrite:
    """By every rank, into `temporary`, which becomes checkpoint `number` of `folder`. sharded:
    names of the tensors that are. then: as for `WholeWrite`."""

    folder: Path
    number: int
    temporary: Path
    body: Any
    sharded: Sequence[str]
    parts: Sequence[FilePart]
    world: World
    then: Callable[[], object]

    def write(self) -> None:
        """This rank's files, and their checksums last. Raises: StorageError."""
        rank, written = self.world.rank, [part.name for part in self.parts]
        try:
            for part in self.parts:
                write_tensors(self.temporary / part.name, part.tensors, part.header)
            if rank == 0:
                written += [SHARDED, write_state(self.temporary, self.body)]
                (self.temporary / SHARDED).write_text(json.dumps(self.sharded), encoding="utf-8")
                flush(self.temporary / SHARDED)
            sums = {name: checksum(self.temporary / name) for name in written}
            there = self.temporary / SUMS.format(rank)
            beginning = there.with_suffix(".part")
            beginning.write_text(json.dumps(sums), encoding="utf-8")
            beginning.rename(there)
        except OSError as error:
            raise self._refused(f"rank {rank} could not write its part of", error) from error

    def publish(self) -> None:
        """See `Write`. Raises: StorageError."""
        if self.world.rank:
            return
        path, sums = path_of(self.folder, self.number), dict[str, Any]()
        try:
            for place in self._sums():
                sums |= json.loads(place.read_text(encoding="utf-8"))
                place.unlink()
            write_manifest(self.temporary, sums)
            shutil.rmtree(path, ignore_errors=True)
            self.temporary.rename(path)
            flush(self.folder)
        except OSError as error:
            raise self._refused("could not write", error) from error
        drop_old(self.folder, newest=path)
        self.then()

    def is_whole(self) -> bool:
        """Whether the checksums of all ranks are there."""
        return all(place.exists() for place in self._sums())

    def drop(self) -> None:
        """Remove the folder, on rank 0."""
        if self.world.rank == 0:
            shutil.rmtree(self.temporary, ignore_errors=True)

    def _sums(self) -> list[Path]:
        return [self.temporary / SUMS.format(rank) for rank in range(self.world.size)]

    def _refused(self, what: str, error: OSError) -> StorageError:
        return StorageError(
            f"{what} {path_of(self.folder, self.number)}: {error.strerror or error}; the "
            "checkpoints before it are still there. Free some space or choose another place, then "
            "run the same command again"
        )
