"""The files of a saved folder and how each is written; shared by both kinds of folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from secateur.core.errors import StorageError
from secateur.core.fingerprint import fingerprint
from secateur.core.plan import Plan
from secateur.storage.manifest import Manifest, entries, is_ours

WEIGHTS = "model.safetensors"
BUFFERS = "buffers.safetensors"
EXAMPLE = "example.safetensors"
PLAN = "plan.json"
Example = Tensor | tuple[Tensor, ...] | Mapping[str, Tensor]


def load_example(folder: str | Path) -> Example | None:
    """The example inputs saved with the model, or None."""
    path = Path(folder) / EXAMPLE
    if not path.is_file():
        return None
    tensors = load_file(path)
    if all(name.isdigit() for name in tensors):
        return tuple(tensors[name] for name in sorted(tensors, key=int))
    return tensors


def refuse_foreign(folder: Path) -> None:
    """Raises: StorageError when `folder` holds something that an earlier save did not write."""
    if folder.is_dir() and any(folder.iterdir()) and not is_ours(folder):
        raise StorageError(
            f"{folder} holds files that secateur did not write, and saving would replace them; "
            "choose a new folder"
        )
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"{folder} is a file; choose a new folder")


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file. Raises: OSError when the disk refuses."""
    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        # the writer reports a full disk as its own kind of error
        raise OSError(str(error)) from error


def write_evidence(folder: Path, *, plan: Plan | None, example: Example | None) -> None:
    """Write plan and example inputs beside the weights."""
    if plan is not None:
        (folder / PLAN).write_text(plan.to_json(), encoding="utf-8")
    if example is not None:
        write_tensors(folder / EXAMPLE, _named_example(example))


def describe(
    model: nn.Module, folder: Path, *, kind: str, plan: Plan | None, source: str | None
) -> Manifest:
    """The manifest of all files now in `folder`."""
    changes: tuple[tuple[Any, ...], ...] = ()
    if plan is not None:
        changes = tuple(
            (c.field.owner, c.field.name, c.field.index, c.before, c.after) for c in plan.changes
        )
    return Manifest(
        kind=kind,
        model_class=f"{type(model).__module__}.{type(model).__qualname__}",
        fingerprint=fingerprint(model),
        files=entries(folder, [path.name for path in folder.iterdir()]),
        changes=changes,
        source=source,
    )


def _named_example(example: Example) -> dict[str, Tensor]:
    if isinstance(example, Tensor):
        example = (example,)
    named = (
        dict(example)
        if isinstance(example, Mapping)
        else {str(position): tensor for position, tensor in enumerate(example)}
    )
    strange = [name for name, value in named.items() if not isinstance(value, Tensor)]
    if strange:
        raise StorageError(f"example inputs {strange} are no tensors; leave example out")
    return {name: tensor.detach().clone().contiguous().cpu() for name, tensor in named.items()}
