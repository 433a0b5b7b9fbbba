"""Batch norm over the rows of all ranks is batch norm over the whole batch."""

from __future__ import annotations

import copy

import pytest
import torch
from threads import on_ranks
from torch import Tensor, nn

from secateur.core.world import ALONE, World
from secateur.engines.batch_norm import SharedBatchNorm, has_batch_norm

LAYERS = {
    "plain": lambda: nn.BatchNorm2d(3),
    "no affine": lambda: nn.BatchNorm2d(3, affine=False),
    "no running statistics": lambda: nn.BatchNorm2d(3, track_running_stats=False),
    "cumulative": lambda: nn.BatchNorm2d(3, momentum=None),
}
"""Ways in which a layer calls the function."""


def trained(layer: nn.Module, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
    """Output, gradients and statistics after a forward and a backward."""
    x = x.clone().requires_grad_()
    y = layer(x)
    (y * weight).sum().backward()
    gradients = [p.grad for p in layer.parameters() if p.grad is not None]
    assert x.grad is not None
    return y.detach(), x.grad, *gradients, *layer.buffers()


@pytest.mark.parametrize("name", LAYERS)
def test_it_is_that_of_the_whole_batch(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=generator)
    weight = torch.randn(5, 3, 4, 4, dtype=torch.float64, generator=generator)
    layer = LAYERS[name]().double()
    rows = [slice(0, 2), slice(2, 5)]

    def work(world: World) -> tuple[Tensor, ...]:
        own = copy.deepcopy(layer)
        with SharedBatchNorm(world):
            return trained(own, x[rows[world.rank]], weight[rows[world.rank]])

    (first, second), _ = on_ranks(2, work)
    y, dx, *rest = trained(copy.deepcopy(layer), x, weight)
    close = {"rtol": 1e-10, "atol": 1e-12}
    torch.testing.assert_close(torch.cat([first[0], second[0]]), y, **close)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), dx, **close)
    parameters = len(list(layer.parameters()))
    for k, whole in enumerate(rest[:parameters], start=2):  # gradients add up over the ranks
        torch.testing.assert_close(first[k] + second[k], whole, **close)
    for own, other, whole in zip(
        first[2 + parameters :], second[2 + parameters :], rest[parameters:], strict=True
    ):
        assert torch.equal(own, other)
        torch.testing.assert_close(own, whole, **close)


def test_in_evaluation_it_is_torchs_own() -> None:
    layer, x = nn.BatchNorm1d(4).eval(), torch.randn(3, 4)
    with SharedBatchNorm(ALONE):
        y = layer(x)
    assert torch.equal(y, layer(x))


def test_half_precision_takes_its_statistics_in_float32() -> None:
    layer, x = nn.BatchNorm1d(4), (100 + torch.randn(64, 4)).bfloat16()
    x.requires_grad_()
    with SharedBatchNorm(ALONE):
        y = layer(x)
    (y.float() ** 3).sum().backward()
    assert y.dtype == torch.bfloat16 and x.grad is not None and x.grad.dtype == torch.bfloat16
    exact = x.detach().float().requires_grad_()
    (nn.BatchNorm1d(4)(exact) ** 3).sum().backward()
    torch.testing.assert_close(x.grad.float(), exact.grad, rtol=0.05, atol=0.05)
    x = x.detach()
    torch.testing.assert_close(layer.running_mean, 0.1 * x.float().mean(dim=0))


def test_models_without_it_are_told_from_those_with_it() -> None:
    assert has_batch_norm(nn.Sequential(nn.BatchNorm1d(2)))
    assert not has_batch_norm(nn.Sequential(nn.LayerNorm(2)))
