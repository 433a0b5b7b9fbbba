"""`idx:FOLDER`: image classification in MNIST's own file format (MNIST, Fashion-MNIST, ...).

The folder holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
`t10k-labels-idx1-ubyte`, each plain or with `.gz`. The format: two zero bytes, a type code, the
number of dimensions, each dimension as a big-endian 32-bit integer, then the bytes.
"""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from secateur.zoo.data import Data, split

_UNSIGNED_BYTE = 8
_VALIDATION_SHARE = 0.1


def load(rest: str, *, seed: int) -> Data:
    """Their own test split; 10 % of the training images are the validation split."""
    folder = Path(rest)
    if not rest or not folder.is_dir():
        raise ValueError(f"data 'idx:{rest}': give the folder of the four files, idx:FOLDER")
    inputs, labels = _pair(folder, "train")
    train, validation, _ = split(inputs, labels, shares=(_VALIDATION_SHARE, 0.0), seed=seed)
    test = TensorDataset(*_pair(folder, "t10k"))
    classes = int(labels.max()) + 1
    about = f"{len(inputs) + len(test):,} images, {classes} classes ({folder.name})"
    return Data(folder.name, train, validation, test, tuple(inputs.shape[1:]), classes, about)


def _pair(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    images = read_idx(_find(folder, f"{part}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{part}-labels-idx1-ubyte"))
    if len(images) != len(labels):
        raise ValueError(f"{folder}: {len(images)} {part} images, but {len(labels)} labels")
    return images[:, None].to(torch.float32).div_(255), labels.to(torch.int64)


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"{folder} holds neither {name} nor {name}.gz")


def read_idx(path: Path) -> Tensor:
    """The array in an idx file, uint8. Raises: ValueError for another or a truncated file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as file:
        content = bytearray(file.read())
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE:
        raise ValueError(f"{path} is no idx file of unsigned bytes")
    rank = content[3]
    header = 4 + 4 * rank
    if len(content) < header:
        raise ValueError(f"{path} is truncated in its header")
    shape = struct.unpack(f">{rank}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{path} is truncated: {len(content) - header} bytes for an array of shape {shape}"
        )
    return torch.frombuffer(content, dtype=torch.uint8, offset=header).reshape(shape)
