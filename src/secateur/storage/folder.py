"""Save a model as a folder, and load it again by rebuilding the narrow architecture.

The folder holds model.safetensors (each tensor once), plan.json for a cut model,
example.safetensors where an example input was given, and manifest.json. It appears whole or not at
all. Loading checks every file, builds the dense model, replays the plan's shapes and attributes,
and loads strictly.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.core.atomic import replacing_folder
from secateur.core.dims import dim_size
from secateur.core.errors import PlanMismatchError, StorageError
from secateur.core.fingerprint import fingerprint, named_tensors
from secateur.core.plan import Plan
from secateur.storage.huggingface import (
    CannotExpressError,
    is_pretrained,
    load_pretrained,
    save_pretrained,
)
from secateur.storage.layout import (
    BUFFERS,
    PLAN,
    WEIGHTS,
    describe,
    refuse_foreign,
    write_evidence,
    write_tensors,
)
from secateur.storage.manifest import NAME, Manifest, read
from secateur.storage.state import State, collect, first_few, restore_

ModelFn = Callable[[], nn.Module]


def save(
    model: nn.Module,
    folder: str | Path,
    *,
    plan: Plan | None = None,
    example: Any = None,
    source: str | None = None,
    tokenizer: Any = None,
) -> None:
    """Write the model to `folder`, replacing an earlier save there as a whole.

    plan: of a cut model; without it `load` cannot rebuild changed shapes. example: inputs to keep
    beside the weights. source: the specification that builds the dense model, for
    `zoo.load_model(folder)`.
    Raises: StorageError when the folder holds something else, or cannot be written; what stood
    there before is then intact.

    A transformers model whose configuration can express the cut is written so that plain
    `from_pretrained` loads it, with `tokenizer` if given; where it cannot, a warning says why.
    """
    folder = Path(folder)
    refuse_foreign(folder)
    if is_pretrained(model):
        try:
            save_pretrained(
                model, folder, plan=plan, example=example, tokenizer=tokenizer, source=source
            )
        except CannotExpressError as error:
            warnings.warn(f"saved for secateur.load only: {error}", stacklevel=2)
        else:
            return
    _save_folder(model, folder, plan=plan, example=example, source=source)


def _save_folder(
    model: nn.Module,
    folder: Path,
    *,
    plan: Plan | None,
    example: Any,
    source: str | None,
) -> None:
    state = collect(model, changed=() if plan is None else plan.renamed().tensors)
    with replacing_folder(folder) as beside:
        write_tensors(beside / WEIGHTS, state.weights)
        if state.buffers:
            write_tensors(beside / BUFFERS, state.buffers)
        write_evidence(beside, plan=plan, example=example)
        manifest = describe(model, beside, kind="folder", plan=plan, source=source)
        manifest = replace(manifest, aliases=state.aliases)
        (beside / NAME).write_text(manifest.to_json(), encoding="utf-8")


def load(folder: str | Path, model_fn: ModelFn | None = None) -> nn.Module:
    """The saved model, built by `model_fn` (which builds the dense one) and cut as the plan says.

    A Hugging Face folder needs no `model_fn`.
    Raises: StorageError when a file is missing, truncated, changed or does not fit;
    PlanMismatchError when `model_fn` builds another model than the plan was made for.
    """
    folder = Path(folder)
    manifest = read(folder)
    if manifest.kind == "huggingface":
        return load_pretrained(folder, manifest)
    if model_fn is None:
        raise StorageError(
            f"{folder} holds a {manifest.model_class}, which Python code must build first: "
            "load(folder, model_fn) with the function that built the dense model"
        )
    state = _read_state(folder, manifest)
    model = model_fn()
    if PLAN in manifest.files:
        _rebuild_(model, Plan.load(folder / PLAN), state)
    restore_(model, state)
    if fingerprint(model) != manifest.fingerprint:
        raise StorageError(
            f"the model loaded from {folder} is not the one that was saved (a "
            f"{manifest.model_class}): module classes or buffers differ. Give the model_fn that "
            "built it, with the same library versions"
        )
    return model


def _read_state(folder: Path, manifest: Manifest) -> State:
    if WEIGHTS not in manifest.files:
        raise StorageError(f"{folder / NAME} lists no {WEIGHTS}; save the model again")
    try:
        weights = _read_tensors(folder / WEIGHTS)
        buffers = _read_tensors(folder / BUFFERS) if BUFFERS in manifest.files else {}
    except SafetensorError as error:
        raise StorageError(f"{folder}: the weights cannot be read ({error})") from error
    dangling = [alias for alias, name in manifest.aliases.items() if name not in weights]
    if dangling:
        raise StorageError(
            f"{folder / NAME} ties {first_few(dangling)} to tensors that {WEIGHTS} does not hold; "
            "it was changed. Copy the folder again, or save the model again"
        )
    return State(weights, buffers, manifest.aliases)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    # copies: a view of the file would crash if the file shrank, and lies at odd addresses, where
    # kernels sum in another order
    return {name: tensor.clone() for name, tensor in load_file(path).items()}


def _rebuild_(model: nn.Module, plan: Plan, state: State) -> None:
    from secateur.cut.apply import apply_architecture_

    if fingerprint(model) != plan.fingerprint:
        raise PlanMismatchError(
            "model_fn builds another model than the one that was cut: "
            f"{first_few(_differences(model, plan, state))}. Give the function that built the "
            "dense model"
        )
    apply_architecture_(model, plan)


def _differences(model: nn.Module, plan: Plan, state: State) -> list[str]:
    """How the tensors of `model` differ from those of the model that the plan was made for."""
    stored = {name: tuple(tensor.shape) for name, tensor in state.weights.items()}
    for name, dims in plan.tensors.items():
        stored[state.aliases.get(name, name)] = tuple(dim_size(dim) for dim in dims)
    dense = stored | {alias: stored[name] for alias, name in state.aliases.items()}
    found = {name: tuple(tensor.shape) for name, tensor in named_tensors(model)}
    problems = [
        f"{name} is {found.get(name, 'absent')}, expected {shape}"
        for name, shape in dense.items()
        if found.get(name) != shape
    ]
    unexpected = [name for name, _ in model.state_dict().items() if name not in dense]
    problems += [f"{name} was not in the dense model" for name in unexpected]
    return problems or ["its tensors agree, its module classes differ"]
