"""Second derivatives of the mean loss, by differentiating twice: never a Hessian, only products.

``H v`` is the gradient of ``g . v``. Attention takes its plain path meanwhile, because the fused
kernels cannot be differentiated twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from secateur.core.errors import ScoreError
from secateur.core.modes import without_fast_path
from secateur.core.world import ALONE, World
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.gradients import (
    Gradients,
    LossFn,
    batch_losses,
    mean_gradients,
    trainable,
)
from secateur.criteria.matrices import generator_of
from secateur.criteria.running import plain_recurrence
from secateur.criteria.shares import repeatable

PROBES = 8
"""Random sign vectors for each batch; the estimate's error falls with the root of their number."""


def hessian_gradients(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, *, world: World = ALONE
) -> Gradients:
    """``H g`` with the Hessian H and the gradient g of the loss averaged over all batches."""
    batches = repeatable(data)
    with _twice_differentiable(model):
        mean = mean_gradients(model, batches, loss_fn, world=world)
        return _mean_product(model, batches, loss_fn, lambda number: [mean], world=world)


def hessian_diagonals(
    model: nn.Module,
    data: Iterable[Any],
    loss_fn: LossFn | None,
    *,
    seed: int = 0,
    probes: int = PROBES,
    world: World = ALONE,
) -> Gradients:
    """An unbiased estimate of the Hessian's diagonal: the mean of ``v * H v`` over sign vectors v,
    drawn for each batch from its number and the seed alone.

    Source: Bekas, Kokiopoulou, Saad, An estimator for the diagonal of a matrix, Applied Numerical
    Mathematics 2007, equation 2.
    """
    parameters = trainable(model)

    def signs(number: int) -> Iterator[Gradients]:
        generator = generator_of(f"hessian_diagonal {number}", seed)
        return (_signs(parameters, generator) for _ in range(probes))

    with _twice_differentiable(model):
        return _mean_product(model, data, loss_fn, signs, world=world, times_vector=True)


def _signs(parameters: dict[str, nn.Parameter], generator: torch.Generator) -> Gradients:
    return {
        name: (torch.rand(p.shape, generator=generator) < 0.5).to(p.device, p.dtype).mul_(2).sub_(1)
        for name, p in parameters.items()
    }


def _mean_product(
    model: nn.Module,
    data: Iterable[Any],
    loss_fn: LossFn | None,
    vectors: Callable[[int], Iterable[Gradients]],
    *,
    world: World,
    times_vector: bool = False,
) -> Gradients:
    """The mean over batches and the vectors v for each batch's number of ``H v``, or of
    ``v * H v``."""
    parameters = trainable(model)
    sums = ExactSums(parameters)
    for number, loss in batch_losses(model, data, loss_fn):
        known = _differentiable_gradients(loss, parameters)
        for vector in vectors(number):
            product = _product(known, vector, parameters)
            if times_vector:
                product = {name: tensor * vector[name] for name, tensor in product.items()}
            sums.add_(product)
    sums.reduce_(world, what="products with the Hessian")
    return sums.means()


def _differentiable_gradients(loss: Tensor, parameters: dict[str, nn.Parameter]) -> Gradients:
    with torch.enable_grad():
        found = torch.autograd.grad(
            loss, list(parameters.values()), create_graph=True, allow_unused=True
        )
    pairs = zip(parameters, found, strict=True)
    return {name: gradient for name, gradient in pairs if gradient is not None}


def _product(
    gradients: Gradients, vector: Gradients, parameters: dict[str, nn.Parameter]
) -> Gradients:
    """``H v`` for every parameter that the loss depends on: 0 where it does so linearly."""
    bent = {name: g for name, g in gradients.items() if g.requires_grad and name in vector}
    zeros = {name: torch.zeros_like(parameters[name]) for name in gradients}
    if not bent:
        return zeros
    try:
        found = torch.autograd.grad(
            list(bent.values()),
            [parameters[name] for name in gradients],
            grad_outputs=[vector[name].to(g.dtype) for name, g in bent.items()],
            retain_graph=True,
            allow_unused=True,
        )
    except RuntimeError as error:
        raise ScoreError(
            f"the model cannot be differentiated twice: {error}. Use a criterion of first order, "
            "such as 'taylor' or 'snip'"
        ) from error
    pairs = zip(gradients, found, strict=True)
    return {name: zeros[name] if product is None else product for name, product in pairs}


@contextmanager
def _twice_differentiable(model: nn.Module) -> Iterator[None]:
    """Without fused kernels that have no second derivative: attention's, and recurrent layers'."""
    with sdpa_kernel(SDPBackend.MATH), plain_recurrence(model), without_fast_path():
        yield
