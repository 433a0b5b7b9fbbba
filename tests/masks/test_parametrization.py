"""What a masked module computes with: the same in training and out of it, laid out as before."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from secateur.masks import mask_
from secateur.masks.parametrization import mask_at


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_training_reads_what_evaluation_reads(dtype: torch.dtype) -> None:
    layer = nn.Linear(6, 5).to(dtype)
    mask_(layer, sparsity=0.5)
    trained: Tensor = layer.weight
    with torch.no_grad():
        evaluated = layer.weight
    assert trained.requires_grad and torch.equal(trained, evaluated)
    assert trained.dtype == dtype and int((trained == 0).sum()) == 15


def test_gradients_are_those_of_the_kept_weights() -> None:
    layer = nn.Linear(6, 5)
    mask_(layer, sparsity=0.5)
    mask = mask_at(layer, "weight")
    assert mask is not None
    layer.weight.sum().backward()
    assert torch.equal(layer.parametrizations.weight.original.grad, mask.kept.float())


def test_a_mask_that_moves_is_heeded_at_once() -> None:
    layer = nn.Linear(6, 5)
    mask_(layer, sparsity=0.5)
    assert int((layer.weight == 0).sum()) == 15
    mask_(layer, sparsity=0.8)
    assert int((layer.weight == 0).sum()) == 24
    mask = mask_at(layer, "weight")
    assert mask is not None
    mask.kept.fill_(False)  # in place, as a schedule does
    assert not layer.weight.any()


def test_a_copy_has_a_mask_of_its_own() -> None:
    layer = nn.Linear(6, 5)
    mask_(layer, sparsity=0.5)
    layer.weight.sum().backward()
    other = copy.deepcopy(layer)
    mask = mask_at(other, "weight")
    assert mask is not None
    mask.kept.fill_(False)
    assert layer.weight.any() and not other.weight.any()


@pytest.mark.parametrize("inputs", [1, 3])
def test_a_masked_convolution_stays_in_channels_last(inputs: int) -> None:
    layer = nn.Conv2d(inputs, 4, 3).to(memory_format=torch.channels_last)
    strides = layer.weight.stride()
    x = torch.rand(2, inputs, 8, 8)
    laid = layer(x).stride()
    mask_(layer, sparsity=0.5)
    assert layer.weight.stride() == strides and layer(x).stride() == laid
    layer(x).sum().backward()
    with torch.no_grad():
        assert layer.weight.stride() == strides
