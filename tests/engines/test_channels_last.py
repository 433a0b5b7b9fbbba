"""Convolutions whose weights were laid out anew compute in the layout that they had."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from secateur.engines.channels_last import make_contiguous_
from secateur.masks import mask_


@pytest.mark.parametrize("is_masked", [False, True])
@pytest.mark.parametrize("inputs", [1, 3])
def test_the_layout_of_what_is_computed_stays(inputs: int, is_masked: bool) -> None:
    model = nn.Sequential(nn.Conv2d(inputs, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).double()
    model.to(memory_format=torch.channels_last)
    if is_masked:
        mask_(model, sparsity=0.5)
    x = torch.rand(2, inputs, 6, 6, dtype=torch.float64)
    other = copy.deepcopy(model)
    make_contiguous_(other)
    assert all(parameter.is_contiguous() for parameter in other.parameters())
    expected, found = model(x), other(x)
    assert found.stride() == expected.stride() != expected.contiguous().stride()
    torch.testing.assert_close(found, expected)


def test_what_was_contiguous_is_left_as_it_is() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    make_contiguous_(model)
    assert not model[0]._forward_pre_hooks
    assert model[:1](torch.rand(2, 3, 6, 6)).is_contiguous()
