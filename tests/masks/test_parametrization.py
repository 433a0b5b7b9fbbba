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


def test_what_is_masked_is_zero_whatever_it_was() -> None:
    layer = nn.Linear(3, 1)
    layer.weight.data.copy_(torch.tensor([[-1.0, -2.0, 3.0]]))
    mask_(layer, sparsity=0.6)
    layer.parametrizations.weight.original.data[0, :2] = torch.tensor([-1.0, torch.nan])
    assert layer.weight.tolist() == [[0.0, 0.0, 3.0]]
    assert not layer.weight.detach().signbit().any()
    (layer.weight * torch.tensor([torch.inf, 1.0, 1.0])).nansum().backward()
    assert layer.parametrizations.weight.original.grad.tolist() == [[0.0, 0.0, 1.0]]


def test_gradients_of_gradients_and_of_transforms() -> None:
    layer = nn.Linear(3, 2).double()
    mask_(layer, sparsity=0.5)
    parameters = dict(layer.named_parameters())
    original = parameters["parametrizations.weight.original"]
    x = torch.rand(4, 3, dtype=torch.float64)
    (once,) = torch.autograd.grad(layer(x).pow(2).sum(), original, create_graph=True)
    (twice,) = torch.autograd.grad(once.sum(), original)
    hidden = mask_at(layer, "weight")
    assert hidden is not None and twice.any() and not twice[~hidden.kept].any()

    def loss(values: dict[str, Tensor], row: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(layer, values, row)
        return out.pow(2).sum()

    each = torch.vmap(torch.func.grad(loss), (None, 0))(parameters, x)
    summed = each["parametrizations.weight.original"].sum(0)
    assert torch.allclose(summed, once, atol=1e-12)


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
