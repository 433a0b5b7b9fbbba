"""Example inputs as a safetensors file: any nesting of tuples, lists and dicts of tensors.

The tensors stand in the file; how they are nested, and plain values among them (`use_cache=False`),
in its metadata as JSON. A tensor is ``{"tensor": name}``, a tuple ``{"tuple": [...]}``, a dict
``{"dict": {...}}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from secateur.core.errors import StorageError

_KEY = "structure"


def encode(example: Any) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's metadata.

    Raises: StorageError for a value that is neither tensor nor plain.

    >>> encode(({"flag": True},))
    ({}, {'structure': '{"tuple": [{"dict": {"flag": true}}]}'})
    """
    tensors: dict[str, Tensor] = {}
    structure = _encode(example, "", tensors)
    return tensors, {_KEY: json.dumps(structure)}


def read_example(path: Path) -> Any:
    """The example inputs in a file, nested as they were. Raises: StorageError."""
    with safe_open(path, framework="pt") as file:
        structure = (file.metadata() or {}).get(_KEY)
        if structure is None:
            raise StorageError(f"{path} holds no example inputs; save the model again")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return _decode(json.loads(structure), tensors)


def _encode(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        name = name or "0"
        tensors[name] = value.detach().clone().contiguous().cpu()
        return {"tensor": name}
    if isinstance(value, (tuple, list)):
        items = [_encode(item, _under(name, str(k)), tensors) for k, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if isinstance(value, Mapping):
        return {"dict": {k: _encode(v, _under(name, str(k)), tensors) for k, v in value.items()}}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StorageError(
        f"example input {name or 'itself'} is a {type(value).__name__}; only tensors, numbers, "
        "strings and nestings of them can be saved. Leave example out"
    )


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_decode(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, body),) = value.items()
    if kind == "tensor":
        return tensors[body]
    if kind == "tuple":
        return tuple(_decode(item, tensors) for item in body)
    return {key: _decode(item, tensors) for key, item in body.items()}


def _under(name: str, part: str) -> str:
    return f"{name}.{part}" if name else part
