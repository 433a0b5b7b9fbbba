"""Data of the user's own: `python.module:callable`, where the callable takes nothing and returns
`(inputs, labels)`, which are split here, three such pairs for train, validation and test, or a
`Data`. Inputs are one tensor, labels are class indices.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from secateur.zoo.data import Data, split
from secateur.zoo.own_code import find_callable

SHARES = (0.1, 0.2)
"""Of validation and test, where one pair is returned."""
FORMS = (
    "it must return (inputs, labels), two tensors with one label a sample; three such pairs for "
    "train, validation and test; or a secateur.zoo.data.Data"
)


def load(spec: str, *, seed: int, known: str) -> Data:
    """Call the callable. known: the words that stand for data sets, for the error.

    Raises: ValueError for a callable that is not there, and for what it returns.
    """
    found = find_callable(spec, kind="data set", known=known)()
    if isinstance(found, Data):
        return found
    if _is_pair(found):
        labels = _labels(spec, found[1])
        parts = split(found[0], labels, shares=SHARES, seed=seed)
    elif isinstance(found, tuple | list) and len(found) == 3 and all(map(_is_pair, found)):
        train, validation, test = (TensorDataset(x, _labels(spec, y)) for x, y in found)
        parts = train, validation, test
    else:
        raise ValueError(f"{spec} returned {_described(found)}; {FORMS}")
    empty = [n for n, p in zip(("train", "validation", "test"), parts, strict=True) if not len(p)]
    if empty:
        raise ValueError(f"{spec} leaves no sample for the {empty[0]} split; give more samples")
    inputs = parts[0].tensors[0]
    classes = 1 + max(int(part.tensors[1].max()) for part in parts)
    name = spec.rpartition(":")[2]
    about = f"{sum(map(len, parts)):,} samples, {classes} classes ({spec})"
    return Data(name, *parts, tuple(inputs.shape[1:]), classes, about)


def _is_pair(found: Any) -> bool:
    if not isinstance(found, tuple | list) or len(found) != 2:
        return False
    inputs, labels = found
    tensors = isinstance(inputs, Tensor) and isinstance(labels, Tensor)
    return tensors and inputs.ndim > 0 and labels.ndim == 1 and len(inputs) == len(labels)


def _labels(spec: str, labels: Tensor) -> Tensor:
    whole = not labels.is_floating_point() and not labels.is_complex()
    if not whole or not len(labels) or int(labels.min()) < 0:
        raise ValueError(
            f"{spec} returned labels of type {labels.dtype}; they must be class indices from 0, "
            "for example labels.to(torch.int64)"
        )
    return labels.to(torch.int64)


def _described(found: Any) -> str:
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of ({', '.join(map(_described, found))})"
    if isinstance(found, torch.Tensor):
        return f"a tensor of shape {tuple(found.shape)}"
    return f"a {type(found).__name__}"
