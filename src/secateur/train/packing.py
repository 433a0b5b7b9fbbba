"""Nested values with tensors in them, as JSON and safetensors: what a checkpoint is made of.

`pack` splits a tree of dicts, lists, tuples, numbers, strings and tensors into a JSON body and a
flat mapping of tensors; `unpack` is its inverse. Nothing else can be packed, so nothing is ever
pickled, and a value that would need it is an error that names its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from secateur.core.errors import TrainError
from secateur.train.staging import copies

MARKS = ("$tensor", "$tuple", "$items")


def pack(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON body and the tensors it refers to, on the CPU, contiguous, without shared memory.

    Raises: TrainError for a value that is neither plain nor a tensor.

    >>> import torch
    >>> body, tensors = pack({"step": 3, "betas": (0.9, 0.99), "state": {0: torch.ones(2)}})
    >>> body["betas"], sorted(tensors)
    ({'$tuple': [0.9, 0.99]}, ['state/0'])
    >>> unpack(body, tensors)["state"][0].tolist()
    [1.0, 1.0]
    """
    body, tensors = refer(tree)
    return body, copies(tensors)


def refer(tree: Any) -> tuple[Any, dict[str, Tensor]]:
    """A JSON body and the very tensors it refers to, wherever they lie. Raises: TrainError."""
    tensors: dict[str, Tensor] = {}
    return _encode(tree, "", tensors), tensors


def unpack(body: Any, tensors: Mapping[str, Tensor]) -> Any:
    """The tree that `pack` split."""
    if isinstance(body, list):
        return [unpack(item, tensors) for item in body]
    if not isinstance(body, dict):
        return body
    if "$tensor" in body:
        return tensors[body["$tensor"]]
    if "$tuple" in body:
        return tuple(unpack(item, tensors) for item in body["$tuple"])
    if "$items" in body:
        return {unpack(k, tensors): unpack(v, tensors) for k, v in body["$items"]}
    return {key: unpack(value, tensors) for key, value in body.items()}


def _encode(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        key = place or "value"
        while key in tensors:
            key += "'"
        tensors[key] = value
        return {"$tensor": key}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        items = [_encode(item, _under(place, k), tensors) for k, item in enumerate(value)]
        return items if isinstance(value, list) else {"$tuple": items}
    if isinstance(value, Mapping):
        return _encode_mapping(value, place, tensors)
    raise TrainError(
        f"{place or 'the value'} is a {type(value).__name__}, which a checkpoint cannot hold: "
        "checkpoints are JSON and safetensors, never a pickle. Train without checkpoint_dir, or "
        "keep only numbers, strings, lists, dicts and tensors in the optimizer's state"
    )


def _encode_mapping(value: Mapping[Any, Any], place: str, tensors: dict[str, Tensor]) -> Any:
    encoded = [(key, _encode(item, _under(place, key), tensors)) for key, item in value.items()]
    if all(isinstance(key, str) and key not in MARKS for key in value):
        return dict(encoded)
    return {"$items": [[_encode(key, place, tensors), item] for key, item in encoded]}


def _under(place: str, key: object) -> str:
    return f"{place}/{key}" if place else str(key)
