"""Data by specification: `digits`, `idx:FOLDER` for files in MNIST's format, or
`python.module:callable` for data of one's own.

Splits are made once from a seed, so that every run and every comparison sees the same test split.
The word before the colon is the file in `datasets/` that loads it, or a Python module.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from secateur.core import lookup

DATASETS = "secateur.zoo.datasets"


@dataclass(frozen=True)
class Data:
    """Three disjoint splits, each of (inputs, labels). input_shape: of one input. classes: how
    many labels. about: one line that says what it is and where it comes from."""

    name: str
    train: TensorDataset
    validation: TensorDataset
    test: TensorDataset
    input_shape: tuple[int, ...]
    classes: int
    about: str


def load_data(spec: str, *, seed: int = 0) -> Data:
    """The data set that `spec` names. Raises: ValueError that lists what there is."""
    word, colon, rest = spec.partition(":")
    known = lookup.names(DATASETS)
    if colon and word not in known:
        from secateur.zoo import own_data

        return own_data.load(spec, seed=seed, known=" and ".join(known))
    data: Data = lookup.find(DATASETS, word, kind="data set").load(rest, seed=seed)
    return data


def split(
    inputs: Tensor, labels: Tensor, *, shares: tuple[float, float], seed: int
) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Train, validation and test split, every class in the same proportion in each.

    shares: of validation and of test.

    >>> parts = split(torch.zeros(20, 1), torch.arange(20) % 2, shares=(0.2, 0.3), seed=0)
    >>> [len(part) for part in parts]
    [10, 4, 6]
    """
    generator = torch.Generator().manual_seed(seed)
    parts: tuple[list[Tensor], list[Tensor], list[Tensor]] = ([], [], [])
    for label in range(int(labels.max()) + 1):
        members = (labels == label).nonzero().flatten()
        members = members[torch.randperm(len(members), generator=generator)]
        validation, test = (round(share * len(members)) for share in shares)
        sizes = [len(members) - validation - test, validation, test]
        for part, chosen in zip(parts, torch.split(members, sizes), strict=True):
            part.append(chosen)
    train, validation_part, test_part = (torch.cat(part).sort().values for part in parts)
    return (
        TensorDataset(inputs[train], labels[train]),
        TensorDataset(inputs[validation_part], labels[validation_part]),
        TensorDataset(inputs[test_part], labels[test_part]),
    )
