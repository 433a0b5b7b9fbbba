"""Checkpoints of a training that several ranks share: one folder, in which each writes its part.

Where every rank holds everything, rank 0 writes what a single process writes. Where parameters are
sharded, every rank writes safetensors of what it holds, and any number of ranks reads them. Either
way the folder appears by one rename, with the size and checksum of every file in its manifest.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from secateur.core.errors import StorageError
from secateur.core.world import World
from secateur.engines.training import Parallel, ShardFiles
from secateur.train.checkpoint import (
    FORMAT,
    MANIFEST,
    STATE,
    TENSORS,
    checksum,
    drop_old,
    newest_whole,
    path_of,
    read_state,
    save_checkpoint,
)
from secateur.train.packing import refer, unpack

SHARDED = "sharded.json"
"""Which of the tensors are sharded; a checkpoint without it is one of a single process."""


def save(folder: Path, tree: Any, *, number: int, parallel: Parallel) -> None:
    """Write `tree` as checkpoint `number`. Raises: StorageError, TrainError, EngineError."""
    if parallel.files is not None:
        _save_parts(folder, tree, number, parallel.files, parallel.world)
    elif parallel.world.rank == 0:
        save_checkpoint(folder, tree, number=number)


def latest(folder: Path, parallel: Parallel, *, parameters: Collection[str]) -> Any | None:
    """The tree of the newest whole checkpoint, the same on every rank; None when there is none.

    It may have been written by another number of ranks, or by another kind of `parallel`.
    parameters: names of those that are sharded where any are.
    Raises: TrainError when every one of them is damaged; EngineError.
    """
    world, files = parallel.world, parallel.files
    path = newest_whole(folder) if world.rank == 0 else None
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
            tensors = {
                key: files.lay_out(tensor) if _is_of_parameter(key, tensor, parameters) else tensor
                for key, tensor in tensors.items()
            }
    return unpack(read_state(path), tensors)


def _whole(path: Path) -> dict[str, Tensor]:
    from secateur.engines.shard_files import read_whole

    return read_whole(path)


def _is_of_parameter(key: str, tensor: Tensor, parameters: Collection[str]) -> bool:
    """Whether a tensor of a checkpoint has a parameter's shape: its value, its average, or what an
    optimizer keeps of it. Keys are paths, and names of parameters have no slash."""
    kept = key.startswith("optimizer/state/") and tensor.ndim > 0
    return kept or key.rpartition("/")[2] in parameters


def _save_parts(folder: Path, tree: Any, number: int, files: ShardFiles, world: World) -> None:
    body, tensors = refer(tree)
    temporary = _begun(folder, path_of(folder, number), world)
    files.write(temporary, tensors)
    if world.rank == 0:
        sharded = [name for name, tensor in tensors.items() if files.is_sharded(tensor)]
        (temporary / SHARDED).write_text(json.dumps(sharded))
        (temporary / STATE).write_text(json.dumps({"format": FORMAT, "tree": body}))
    world.wait(what="the parts of a checkpoint")
    names = sorted(path.name for path in temporary.iterdir())
    own = {name: checksum(temporary / name) for name in names[world.rank :: world.size]}
    manifests = world.gather(own, what="the checksums of a checkpoint")
    if world.rank == 0:
        manifest = {name: sums for part in manifests for name, sums in part.items()}
        (temporary / MANIFEST).write_text(json.dumps(manifest))
        temporary.rename(path_of(folder, number))
        drop_old(folder, newest=path_of(folder, number))
    world.wait(what="a checkpoint")


def _begun(folder: Path, path: Path, world: World) -> Path:
    """The folder that becomes `path`, made by rank 0. Raises: StorageError."""
    name = ""
    if world.rank == 0:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(path, ignore_errors=True)
            name = tempfile.mkdtemp(prefix=f".{path.name}.", dir=folder)
            Path(name).chmod(0o755)
        except OSError as error:
            raise StorageError(
                f"could not write {path}: {error.strerror or error}; free some space or choose "
                "another place, then run the same command again"
            ) from error
    return Path(world.first(name, what="where a checkpoint is written"))
