"""Splits are disjoint, stratified and the same for a seed; idx files are read and checked."""

from __future__ import annotations

import gzip
import struct
import sys
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


MODULE = """
import torch
from secateur.zoo.data import load_data

x, y = torch.randn(40, 3), torch.arange(40) % 2


def pair():
    return x, y


def three():
    return (x[:20], y[:20]), (x[20:30], y[20:30]), (x[30:], y[30:].to(torch.int8))


def ready():
    return load_data("digits")


def asks(folder):
    return x, y


def inputs():
    return x


def unequal():
    return x, y[:7]


def real():
    return x, y.float()


def negative():
    return x, y - 1


def few():
    return x[:2], y[:2]
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_data.py").write_text(MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_data", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("own")
def test_data_of_ones_own() -> None:
    one, same, other = (load_data("my_data:pair", seed=seed) for seed in (0, 0, 1))
    assert [len(part) for part in (one.train, one.validation, one.test)] == [28, 4, 8]
    assert (one.name, one.input_shape, one.classes) == ("pair", (3,), 2)
    assert torch.equal(one.test.tensors[0], same.test.tensors[0])
    assert not torch.equal(one.test.tensors[0], other.test.tensors[0])
    three = load_data("my_data:three")
    assert [len(part) for part in (three.train, three.validation, three.test)] == [20, 10, 10]
    assert three.test.tensors[1].dtype == torch.int64
    assert load_data("my_data:ready").name == "digits"


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("my_dta:pair", "no Python module 'my_dta'.*data sets are digits and idx"),
        ("my_data:pear", "did you mean 'pair'"),
        ("my_data:asks", r"needs arguments \['folder'\]"),
        ("my_data:inputs", r"returned a tensor of shape \(40, 3\); it must return \(inputs"),
        ("my_data:unequal", r"tuple of \(a tensor of shape \(40, 3\), a tensor of shape \(7,\)\)"),
        ("my_data:real", "labels of type torch.float32; they must be class indices"),
        ("my_data:negative", "class indices from 0"),
        ("my_data:few", "no sample for the validation split"),
    ],
)
def test_data_of_ones_own_that_is_wrong(spec: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_data(spec)
