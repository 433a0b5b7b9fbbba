"""Taps: the outputs of named modules during one forward, and which modules two models share.

Hooks stand only while the block runs, so a model that was tapped is left as it was.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from secateur.core.errors import TrainError

Pairs = tuple[tuple[str, str], ...]
"""Paths of a module of the student and one of the teacher."""


@contextmanager
def tapped(model: nn.Module, paths: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """What the named modules put out inside the block; of a tuple the first tensor.

    >>> model = nn.Sequential(nn.Identity(), nn.Flatten())
    >>> with tapped(model, ["0"]) as seen:
    ...     _ = model(Tensor([[[1.0]]]))
    >>> seen["0"].shape
    torch.Size([1, 1, 1])
    """
    seen: dict[str, Tensor] = {}

    def note(path: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            tensor = _first_tensor(output)
            if tensor is not None:
                seen[path] = tensor

        return hook

    handles = [model.get_submodule(path).register_forward_hook(note(path)) for path in paths]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def paired(
    named: str | Sequence[str] | Mapping[str, str], student: nn.Module, teacher: nn.Module
) -> Pairs:
    """Pairs of module paths: as a mapping says, by patterns that both follow, or "same" blocks.

    Raises: TrainError for a path that is not there, and where nothing is paired.
    """
    if named == "same":
        pairs = tuple((path, path) for path in _shared_blocks(student, teacher))
    elif isinstance(named, Mapping):
        pairs = tuple(named.items())
    else:
        patterns = (named,) if isinstance(named, str) else named
        pairs = tuple((path, path) for p in patterns for path in _matching(p, student))
    for k, (model, role) in enumerate(((student, "student"), (teacher, "teacher"))):
        for pair in pairs:
            _check_path(model, pair[k], role)
    if not pairs:
        raise TrainError(
            f"{type(student).__name__} and its teacher {type(teacher).__name__} have no modules at "
            'the same path; name pairs, for example Features({"layer2": "stages.1"})'
        )
    return pairs


def _matching(pattern: str, student: nn.Module) -> list[str]:
    names = [name for name, _ in student.named_modules() if name]
    return [name for name in names if fnmatch.fnmatchcase(name, pattern)] or [pattern]


def _shared_blocks(student: nn.Module, teacher: nn.Module) -> list[str]:
    """The outermost repeated modules of both; else the layers with weights, but for the last."""
    theirs = {name: type(module) for name, module in teacher.named_modules()}
    blocks: list[str] = []
    layers: list[str] = []
    for name, module in student.named_modules():
        if not name or theirs.get(name) is not type(module):
            continue
        above = student.get_submodule(name.rpartition(".")[0])
        inside = any(name.startswith(f"{block}.") for block in blocks)
        repeated = isinstance(above, nn.ModuleList | nn.Sequential)
        if repeated and not inside and any(True for _ in module.children()):
            blocks.append(name)
        if any(weight.ndim > 1 for weight in module.parameters(recurse=False)):
            layers.append(name)
    return blocks or layers[:-1]


def _check_path(model: nn.Module, path: str, role: str) -> None:
    names = [name for name, _ in model.named_modules() if name]
    if path in names:
        return
    near = difflib.get_close_matches(path, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join(names[:8])}, ..."
    raise TrainError(f"the {role} {type(model).__name__} has no module {path!r}; {hint}")


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    values = output.values() if isinstance(output, Mapping) else output
    if not isinstance(values, Collection):
        return None
    return next((value for value in values if isinstance(value, Tensor)), None)
