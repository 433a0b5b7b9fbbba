"""Splits are disjoint, stratified and the same for a seed; idx files are read and checked."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from secateur.zoo.data import Data, load_data, split


def rows(data: Data) -> list[Tensor]:
    return [part.tensors[0].flatten(1) for part in (data.train, data.validation, data.test)]


def test_digits_are_all_there_once() -> None:
    data = load_data("digits")
    assert sum(len(part) for part in rows(data)) == 1797
    everything = torch.cat(rows(data))
    assert everything.min() == 0 and everything.max() == 1
    assert data.input_shape == (1, 8, 8) and data.train.tensors[0].shape[1:] == (1, 8, 8)
    assert set(data.test.tensors[1].tolist()) == set(range(10))
    assert 0.24 < len(data.test) / 1797 < 0.26


def test_a_seed_is_a_split() -> None:
    first, again, other = (load_data("digits", seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.test.tensors[0], again.test.tensors[0])
    assert not torch.equal(first.test.tensors[0], other.test.tensors[0])


def test_splits_are_disjoint_and_stratified() -> None:
    labels = torch.arange(100) % 4
    parts = split(torch.arange(100)[:, None], labels, shares=(0.2, 0.4), seed=3)
    seen = torch.cat([part.tensors[0].flatten() for part in parts])
    assert sorted(seen.tolist()) == list(range(100))
    for part, count in zip(parts, (10, 5, 10), strict=True):
        assert torch.bincount(part.tensors[1]).tolist() == [count] * 4


def test_unknown_data_says_what_there_is() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'digits'.*idx"):
        load_data("digit")
    with pytest.raises(ValueError, match="takes nothing after a colon"):
        load_data("digits:8")


def write_idx(path: Path, array: Tensor) -> None:
    content = struct.pack(f">BBBB{array.dim()}I", 0, 0, 8, array.dim(), *array.shape)
    content += bytes(array.flatten().tolist())
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    for part, count, suffix in (("train", 40, ".gz"), ("t10k", 10, "")):
        images = torch.randint(0, 256, (count, 5, 4), dtype=torch.uint8)
        images[0, 0, 0] = 255
        write_idx(tmp_path / f"{part}-images-idx3-ubyte{suffix}", images)
        labels = torch.arange(count, dtype=torch.uint8) % 5
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte{suffix}", labels)
    return tmp_path


def test_idx_files_are_read(mnist: Path) -> None:
    data = load_data(f"idx:{mnist}")
    assert [len(part) for part in rows(data)] == [35, 5, 10]
    assert data.input_shape == (1, 5, 4) and data.classes == 5
    assert data.test.tensors[0].max() == 1.0


def test_idx_files_that_are_wrong(mnist: Path) -> None:
    path = mnist / "t10k-images-idx3-ubyte"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ValueError, match="is truncated: 199 bytes"):
        load_data(f"idx:{mnist}")
    path.write_bytes(b"PNG!" + content)
    with pytest.raises(ValueError, match="no idx file"):
        load_data(f"idx:{mnist}")
    path.unlink()
    with pytest.raises(ValueError, match="holds neither t10k-images"):
        load_data(f"idx:{mnist}")
