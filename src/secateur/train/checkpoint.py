"""Checkpoints: whole or not there, checked by SHA-256, JSON and safetensors, never a pickle.

A checkpoint is a folder `checkpoint-00000120/` with `state.json`, `tensors.safetensors` and
`manifest.json` (size and checksum of both). It appears by one rename, and older ones are removed
only after that, so a run killed at any moment leaves at least one whole checkpoint. When the
newest is damaged, the one before it is used, with a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from secateur.core.atomic import replacing_folder
from secateur.core.errors import TrainError
from secateur.train.packing import pack, unpack

FORMAT = 2
KEPT = 2  # the newest, and the one to fall back on
STATE, TENSORS = "state.json", "tensors.safetensors"
FILES = (STATE, TENSORS)
NAME = re.compile(r"checkpoint-(\d{8})")
MANIFEST = "manifest.json"


def save_checkpoint(folder: Path, tree: Any, *, number: int) -> Path:
    """Write `tree` (see `packing`) as checkpoint `number` and drop all but the newest two.

    Raises: StorageError when it cannot be written, TrainError when `tree` cannot be packed; the
    earlier checkpoints are then all still there.
    """
    body, tensors = pack(tree)
    return write_checkpoint(folder, body, tensors, number=number)


def write_checkpoint(
    folder: Path, body: Any, tensors: Mapping[str, Tensor], *, number: int
) -> Path:
    """`save_checkpoint` of what `pack` has split. Raises: StorageError."""
    path = path_of(folder, number)
    with replacing_folder(path) as temporary:
        write_state(temporary, body)
        write_tensors(temporary / TENSORS, tensors)
        write_manifest(temporary, {name: checksum(temporary / name) for name in FILES})
    flush(folder)
    drop_old(folder, newest=path)
    return path


def write_state(folder: Path, body: Any) -> str:
    """Write what a checkpoint holds beside its tensors; the file's name."""
    _write_json(folder / STATE, {"format": FORMAT, "tree": body})
    return STATE


def write_manifest(folder: Path, sums: Mapping[str, Any]) -> None:
    """Write the sizes and checksums of a checkpoint's files, all that it needs to be whole."""
    _write_json(folder / MANIFEST, sums)
    flush(folder)


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file to the disk. Raises: OSError."""
    try:
        save_file(dict(tensors), path, None if header is None else dict(header))
    except SafetensorError as error:  # a full disk, told by the writer's own error class
        raise OSError(str(error)) from error
    flush(path)


def flush(path: Path) -> None:
    """See that a file, or the entries of a folder, are on the disk and not only on their way."""
    if os.name == "nt" and path.is_dir():
        return  # Windows flushes no folders
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
    flush(path)


def path_of(folder: Path, number: int) -> Path:
    """Where checkpoint `number` stands."""
    return folder / f"checkpoint-{number:08d}"


def latest_checkpoint(folder: Path) -> Any | None:
    """The tree of the newest whole checkpoint, None when there is no checkpoint at all.

    Raises: TrainError when there are checkpoints and every one of them is damaged.
    """
    path = newest_whole(folder)
    return None if path is None else _read(path)


def newest_whole(folder: Path) -> Path | None:
    """The folder of the newest whole checkpoint, None when there is no checkpoint at all.

    Raises: TrainError when there are checkpoints and every one of them is damaged.
    """
    paths = _checkpoints(folder)
    for path in reversed(paths):
        fault = _fault(path)
        if fault is None:
            return path
        warnings.warn(
            f"checkpoint {path} is damaged ({fault}); using the one before it", stacklevel=2
        )
    if paths:
        raise TrainError(
            f"no checkpoint in {folder} is whole; remove the folder to start from the beginning, "
            "or restore it from a backup"
        )
    return None


def numbered_checkpoint(folder: Path, number: int) -> Any | None:
    """The tree of checkpoint `number`, None when it is not there or damaged."""
    path = path_of(folder, number)
    return _read(path) if path.exists() and _fault(path) is None else None


def _read(path: Path) -> Any:
    return unpack(read_state(path), load_file(path / FILES[1]))


def read_state(path: Path) -> Any:
    """What a checkpoint holds beside its tensors. Raises: TrainError for another format."""
    body = json.loads((path / STATE).read_text(encoding="utf-8"))
    if body["format"] != FORMAT:
        raise TrainError(
            f"{path} has format {body['format']}, this secateur reads format {FORMAT}; resume it "
            "with the secateur that wrote it, or choose another checkpoint folder"
        )
    return body["tree"]


def _fault(path: Path) -> str | None:
    """What is wrong with a checkpoint folder, None when it is whole."""
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        for name in {STATE, *manifest}:
            if checksum(path / name) != manifest[name]:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def checksum(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"size_bytes": path.stat().st_size, "sha256": digest}


def _checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*") if NAME.fullmatch(path.name))


def drop_old(folder: Path, *, newest: Path) -> None:
    """Remove all but the newest whole ones, and what a killed run left half-written."""
    later = [path for path in _checkpoints(folder) if path > newest]
    kept = [path for path in _checkpoints(folder) if path <= newest][-KEPT:]
    for path in _checkpoints(folder):
        if path in later or path not in kept:
            shutil.rmtree(path, ignore_errors=True)
    drop_leftovers(folder)


def drop_leftovers(folder: Path) -> None:
    """Remove what a killed run left half-written."""
    for leftover in folder.glob(".checkpoint-*"):
        shutil.rmtree(leftover, ignore_errors=True)
