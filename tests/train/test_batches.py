"""The in-memory source: every sample once, the order a function of seed and epoch."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from secateur.core.errors import TrainError
from secateur.train import TensorBatches
from secateur.train.batches import predict, set_epoch_, split_batch, to_device

X = torch.arange(10.0).reshape(10, 1)
Y = torch.arange(10)


def order(data: TensorBatches) -> list[int]:
    return torch.cat([y for _, y in data]).tolist()


def test_every_sample_once_with_its_label() -> None:
    data = TensorBatches(X, Y, batch_size=4)
    batches = list(data)
    assert [len(y) for _, y in batches] == [4, 4, 2]
    assert len(data) == 3
    assert sorted(order(data)) == list(range(10))
    assert all(torch.equal(x[:, 0].long(), y) for x, y in batches)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    data, again = TensorBatches(X, Y, batch_size=4, seed=3), TensorBatches(X, Y, batch_size=5)
    first = order(data)
    torch.rand(5)  # the global generator has no say
    assert order(data) == first
    data.set_epoch(1)
    assert order(data) != first
    data.set_epoch(0)
    assert order(data) == first
    assert order(again) != first
    assert order(TensorBatches(X, Y, batch_size=4, shuffle=False)) == list(range(10))


def test_seed_and_epoch_are_not_interchangeable() -> None:
    a, b = TensorBatches(X, Y, batch_size=4, seed=0), TensorBatches(X, Y, batch_size=4, seed=1)
    a.set_epoch(1)
    assert order(a) != order(b)


def test_drop_last() -> None:
    data = TensorBatches(X, Y, batch_size=4, drop_last=True)
    assert [len(y) for _, y in data] == [4, 4]
    assert len(data) == 2


@pytest.mark.parametrize(
    ("x", "y", "size", "message"),
    [
        (X, Y[:9], 4, "x has 10 samples and y has 9"),
        (X[:0], Y[:0], 4, "the data is empty"),
        (X, Y, 11, "batch_size 11 is bigger than the data of 10 samples; use batch_size=10"),
    ],
)
def test_bad_data_is_an_error(x: torch.Tensor, y: torch.Tensor, size: int, message: str) -> None:
    with pytest.raises(TrainError, match=message):
        TensorBatches(x, y, batch_size=size)


def test_batch_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        TensorBatches(X, Y, batch_size=0)


def test_set_epoch_reaches_a_loaders_sampler() -> None:
    dataset = TensorDataset(X, Y)
    sampler = DistributedSampler(dataset, num_replicas=2, rank=0)
    loader = DataLoader(dataset, sampler=sampler, batch_size=2)
    set_epoch_(loader, 4)
    assert sampler.epoch == 4


def test_batches_are_taken_apart_moved_and_fed() -> None:
    assert split_batch([1, 2, 3]) == ((1, 2), 3)
    with pytest.raises(TrainError, match="a batch is a Tensor; it must be a tuple"):
        split_batch(X)
    moved = to_device({"a": [X, (Y, "text")]}, torch.device("meta"))
    assert moved["a"][0].device.type == "meta"
    assert moved["a"][1][1] == "text"
    bilinear = nn.Bilinear(1, 1, 1)
    assert torch.equal(predict(bilinear, (X, X)), bilinear(X, X))
    assert torch.equal(predict(bilinear, ({"input1": X, "input2": X},)), bilinear(X, X))
