"""Batch norm over the rows of all ranks, as one process has it, on the CPU as well as on GPUs.

While a training computes, calls of ``torch.nn.functional.batch_norm`` are answered here, so that no
module is replaced: what traces, cuts and saves the model sees the modules it knows. One sum over
the ranks in the forward (count, sum, sum of squares, in float64), one in the backward.
Source: Ioffe & Szegedy 2015, arXiv 1502.03167, algorithm 1 and its gradient, with the sums over
all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode

from secateur.core.world import World


def has_batch_norm(model: nn.Module) -> bool:
    """Whether statistics of a batch are taken anywhere in the model."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


class SharedBatchNorm(TorchFunctionMode):
    """Inside it, batch norm in training takes its statistics over all ranks of a world."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        if func is not F.batch_norm:
            return func(*args, **(kwargs or {}))
        return _batch_norm(self.world, *args, **(kwargs or {}))


def _batch_norm(
    world: World,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch's own, which names the parameters."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    with torch.no_grad():
        exact = torch.promote_types(input.dtype, torch.float32)
        count, mean_C, var_C = _statistics(input.to(exact), world)
        if running_mean is not None and running_var is not None:
            unbiased_C = var_C * (count / max(1.0, count - 1))
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
    out: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
        input, weight, bias, mean_C.to(exact), var_C.to(exact), eps, count, world
    )
    return out


def _statistics(x: Tensor, world: World) -> tuple[float, Tensor, Tensor]:
    """Count, mean and biased variance of each channel over the rows of all ranks, in float64."""
    # what torch's own batch norm computes with, a twentieth of the time of `var_mean` on a CPU
    mean_C, var_C = torch.batch_norm_update_stats(x, None, None, 0.0)
    count = x.numel() / x.shape[1]
    mean_C, var_C = mean_C.double(), var_C.double()
    own = mean_C.new_full((1,), count)
    sums = torch.cat([own, count * mean_C, count * (var_C + mean_C.square())])
    world.sum_([sums], what="the statistics of a batch norm")
    first, second = sums[1:].chunk(2)
    whole = float(sums[0])
    mean_C = first / whole
    return whole, mean_C, (second / whole - mean_C.square()).clamp_min(0)


class _Normalised(torch.autograd.Function):
    """``y = (x - mean) / sqrt(var + eps) * weight + bias`` where mean and var are of x itself."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean_C: Tensor,
        var_C: Tensor,
        eps: float,
        count: float,
        world: World,
    ) -> Tensor:
        scale_C = mean_C.new_ones(mean_C.shape) if weight is None else weight
        ctx.save_for_backward(x, scale_C, mean_C, var_C)
        ctx.eps, ctx.count, ctx.world = eps, count, world
        ctx.has_weight, ctx.has_bias = weight is not None, bias is not None
        return F.batch_norm(x, mean_C, var_C, scale_C, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        x, scale_C, mean_C, var_C = ctx.saved_tensors
        # as if the statistics were constants; also sum(dy * x_hat) and sum(dy) of each channel
        dx, own_hat_C, own_C = torch.ops.aten.native_batch_norm_backward(
            gradients[0], x, scale_C, mean_C, var_C, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([own_hat_C, own_C]).double()
        ctx.world.sum_([sums], what="the gradient of a batch norm")
        hat_C, plain_C = (sums / ctx.count).to(mean_C.dtype)
        inverse_C = (var_C + ctx.eps).rsqrt()
        # dx -= scale / std * (mean(dy) + x_hat * mean(dy * x_hat)), as slope * x + shift
        slope_C = scale_C * inverse_C.square() * hat_C
        shift_C = scale_C * inverse_C * plain_C - slope_C * mean_C
        shape = [1, -1, *[1] * (x.ndim - 2)]
        slope, shift = slope_C.view(shape), shift_C.view(shape)
        if dx.dtype == slope.dtype:
            dx.addcmul_(x, slope, value=-1).sub_(shift)
        else:  # of half precision, rounded once
            dx = dx.sub(torch.addcmul(shift, x, slope)).to(x.dtype)
        weight = own_hat_C if ctx.has_weight else None
        return dx, weight, own_C if ctx.has_bias else None, None, None, None, None, None
