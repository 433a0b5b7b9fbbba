"""A fast copy of a module is a deep copy: equal everywhere, shared nowhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from secateur.core.copies import copied


class Odd(nn.Module):
    """What modules keep: lists, dicts of modules, tied weights, a cycle, a bound method."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True))
        self.attention = nn.MultiheadAttention(8, 2)
        self.tied = nn.Linear(4, 4)
        self.again = self.tied
        self.tied_weight = self.tied.weight
        self.sizes = [1, [2, 3], {"a": (4, 5)}]
        self.by_number = {1: "one", (2, 3): [4]}
        self.listed = [self.body]
        self.method = self.count
        self.plain_tensor = torch.ones(2)
        self.recurrent = nn.LSTM(4, 5)
        self.hooked = self.tied.register_forward_hook(lambda *args: None)

    def count(self) -> int:
        return len(self.sizes)


class Own(nn.Linear):
    """Says itself how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Own:
        new = Own(self.in_features, self.out_features)
        new.mark = "copied its own way"
        return new


@pytest.mark.parametrize(
    "model",
    [
        Odd(),
        nn.Transformer(8, 2, 1, 1, 16, batch_first=True),
        nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(3, 4)),
    ],
    ids=["odd", "transformer", "weight_norm", "spectral_norm"],
)
def test_equal_and_apart(model: nn.Module) -> None:
    found, expected = copied(model), copy.deepcopy(model)
    assert repr(found) == repr(expected) == repr(model)
    for (name, module), (_, other) in zip(
        found.named_modules(), expected.named_modules(), strict=True
    ):
        assert type(module) is type(other)
        assert vars(module).keys() == vars(other).keys(), name
    originals = {t.data_ptr() for t in model.state_dict().values()}
    for (name, tensor), (_, other) in zip(
        found.state_dict().items(), expected.state_dict().items(), strict=True
    ):
        assert torch.equal(tensor, other) and tensor.stride() == other.stride(), name
        assert tensor.data_ptr() not in originals
    assert not {id(m) for m in found.modules()} & {id(m) for m in model.modules()}
    flags = [p.requires_grad for p in model.parameters()]
    assert [p.requires_grad for p in found.parameters()] == flags


def test_what_hangs_together_stays_together() -> None:
    model = Odd()
    found = copied(model)
    assert found.again is found.tied and found.tied_weight is found.tied.weight
    assert found.listed[0] is found.body and found.method.__self__ is found
    assert found.sizes == model.sizes and found.sizes[1] is not model.sizes[1]
    assert found.by_number == model.by_number and found.by_number[2, 3] is not model.by_number[2, 3]
    assert found.plain_tensor is not model.plain_tensor
    assert found.recurrent._flat_weights[0] is found.recurrent.weight_ih_l0
    found.body.append(nn.ReLU())
    assert len(model.body) == 3


def test_a_class_copies_itself_its_own_way() -> None:
    found = copied(nn.Sequential(Own(2, 3)))
    assert found[0].mark == "copied its own way"


def test_stand_ins() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    other = nn.Parameter(torch.zeros(1, 2))
    assert copied(model, {id(model[0].weight): other})[0].weight is other
