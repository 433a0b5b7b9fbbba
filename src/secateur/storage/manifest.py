"""The manifest of a saved folder: what wrote it, which files belong to it and their checksums.

It is read before anything else, and every file is checked against it before its content is
used, so that a truncated copy or a changed byte is an error that names the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from secateur.core.errors import StorageError

FORMAT = 1
NAME = "manifest.json"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileEntry:
    """One file of the folder: SHA-256 of its bytes, and how many there are."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a saved folder says about itself.

    kind: "folder" or "huggingface", who reads the weights. model_class: for people, and for
    transformers. fingerprint: of the saved model. aliases: other names of a tensor that is stored
    once, by name. changes: the attributes that the cut rewrote, as in plan.json. source: the model
    specification that builds the dense model, where it was known.
    """

    kind: str
    model_class: str
    fingerprint: str
    files: Mapping[str, FileEntry]
    aliases: Mapping[str, str] = field(default_factory=dict)
    changes: tuple[tuple[Any, ...], ...] = ()
    source: str | None = None

    def to_json(self) -> str:
        """Deterministic JSON text."""
        body = {
            "format": FORMAT,
            "tool": "secateur",
            "secateur": installed_version(),
            "torch": str(torch.__version__),
            **asdict(self),
        }
        return json.dumps(body, sort_keys=True, indent=1) + "\n"


def installed_version() -> str:
    """The version of the installed package; "unknown" when run from a source tree."""
    try:
        return metadata.version("secateur")
    except metadata.PackageNotFoundError:
        return "unknown"


def entries(folder: Path, names: Iterable[str]) -> dict[str, FileEntry]:
    """Checksums and sizes of files that were just written."""
    return {
        name: FileEntry(_sha256(folder / name), (folder / name).stat().st_size)
        for name in sorted(names)
    }


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a manifest that says secateur wrote it."""
    try:
        body = json.loads((folder / NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(body, dict) and body.get("tool") == "secateur"


def read(folder: Path) -> Manifest:
    """Read a folder's manifest and check every file against it.

    Raises: StorageError when the folder is missing, another tool's, of a newer format, or when a
    file is missing, truncated or changed.
    """
    manifest = _parse(folder, _body(folder))
    for name, entry in manifest.files.items():
        _check_file(folder, name, entry)
    return manifest


def _body(folder: Path) -> dict[str, Any]:
    path = folder / NAME
    if not folder.is_dir():
        raise StorageError(f"there is no folder {folder}; give the folder that `save` wrote")
    if not path.is_file():
        raise StorageError(
            f"{folder} is not a folder that secateur saved: it has no {NAME}. It holds "
            f"{_listing(folder)}; expected {NAME}, model.safetensors and, for a cut model, "
            "plan.json. For a Hugging Face folder give hf:FOLDER"
        )
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{path} cannot be read as JSON ({error}); it is truncated or changed. "
            "Copy the folder again from where it was saved, or save the model again"
        ) from error
    if not isinstance(body, dict) or body.get("tool") != "secateur":
        raise StorageError(
            f"{path} was written by another tool: expected "
            '"tool": "secateur" in it. Give the folder that secateur saved'
        )
    return body


def _parse(folder: Path, body: dict[str, Any]) -> Manifest:
    found = body.get("format")
    if not isinstance(found, int) or found > FORMAT:
        raise StorageError(
            f"{folder / NAME} has format {found!r} (secateur {body.get('secateur')} wrote it), "
            f"this secateur reads up to format {FORMAT}; update it: pip install -U secateur"
        )
    try:
        files = {n: FileEntry(e["sha256"], e["size_bytes"]) for n, e in body["files"].items()}
        manifest = Manifest(
            kind=body["kind"],
            model_class=body["model_class"],
            fingerprint=body["fingerprint"],
            files=files,
            aliases=dict(body["aliases"]),
            changes=tuple(tuple(change) for change in body["changes"]),
            source=body["source"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise StorageError(
            f"{folder / NAME} lacks what format {FORMAT} needs ({type(error).__name__}: {error}); "
            "it was changed. Copy the folder again, or save the model again"
        ) from error
    for name in files:
        if not _PLAIN_NAME.fullmatch(name):
            raise StorageError(
                f"{folder / NAME} names the file {name!r}, which is no plain file name inside the "
                "folder; it was changed, and nothing of it was read"
            )
    return manifest


def _check_file(folder: Path, name: str, entry: FileEntry) -> None:
    path = folder / name
    again = "Copy the folder again from where it was saved, or save the model again"
    if not path.is_file():
        raise StorageError(f"{path} is missing, {NAME} lists it. {again}")
    size = path.stat().st_size
    if size != entry.size_bytes:
        state = "truncated" if size < entry.size_bytes else "changed"
        raise StorageError(
            f"{path} is {state}: it has {size} bytes, expected {entry.size_bytes}. {again}"
        )
    digest = _sha256(path)
    if digest != entry.sha256:
        raise StorageError(
            f"{path} was changed after saving: its SHA-256 is {digest}, expected {entry.sha256}. "
            f"{again}"
        )


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _listing(folder: Path) -> str:
    found = sorted(path.name for path in folder.iterdir())
    shown = ", ".join(found[:6]) + (", ..." if len(found) > 6 else "")
    return shown or "nothing"
