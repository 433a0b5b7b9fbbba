"""The files of a saved folder and how each is written; shared by both kinds of folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from secateur.core.errors import StorageError
from secateur.core.fingerprint import fingerprint
from secateur.core.plan import Plan
from secateur.storage.examples import encode, read_example
from secateur.storage.manifest import Manifest, entries, is_ours

WEIGHTS = "model.safetensors"
BUFFERS = "buffers.safetensors"
EXAMPLE = "example.safetensors"
PLAN = "plan.json"


def load_example(folder: str | Path) -> Any:
    """The example inputs saved with the model, as they were given; None where there are none."""
    path = Path(folder) / EXAMPLE
    return read_example(path) if path.is_file() else None


def refuse_foreign(folder: Path) -> None:
    """Raises: StorageError when `folder` holds something that an earlier save did not write."""
    if folder.is_dir() and any(folder.iterdir()) and not is_ours(folder):
        raise StorageError(
            f"{folder} holds files that secateur did not write, and saving would replace them; "
            "choose a new folder"
        )
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; choose a new folder")


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file. Raises: OSError when the disk refuses.

    metadata: one entry at most, because the writer's order of several is random.
    """
    try:
        save_file(dict(tensors), path, metadata=dict(metadata or {"format": "pt"}))
    except SafetensorError as error:
        # the writer reports a full disk as its own kind of error
        raise OSError(str(error)) from error


def write_evidence(folder: Path, *, plan: Plan | None, example: Any) -> None:
    """Write plan and example inputs beside the weights."""
    if plan is not None:
        (folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
    if example is not None:
        tensors, metadata = encode(example)
        write_tensors(folder / EXAMPLE, tensors, metadata=metadata)


def describe(
    model: nn.Module, folder: Path, *, kind: str, plan: Plan | None, source: str | None
) -> Manifest:
    """The manifest of all files now in `folder`."""
    changes: tuple[tuple[Any, ...], ...] = ()
    if plan is not None:
        changes = tuple(
            (c.field.owner, c.field.name, c.field.index, c.before, c.after)
            for c in plan.renamed().changes
        )
    return Manifest(
        kind=kind,
        model_class=f"{type(model).__module__}.{type(model).__qualname__}",
        fingerprint=fingerprint(model),
        files=entries(folder, [path.name for path in folder.iterdir()]),
        changes=changes,
        source=source,
    )
