"""Gradients of the loss over calibration batches, one batch at a time.

The model is put into eval mode, because a forward in training mode would move the normalisation
statistics; its flags come back afterwards, and `.grad` of its parameters is never touched. A
batch is ``(inputs, targets)``, with `loss_fn(outputs, targets)`, or a dict of keyword arguments,
whose output carries `.loss` or is given to `loss_fn(outputs, batch)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.core.errors import ScoreError
from secateur.core.modes import evaluating

LossFn = Callable[[Any, Any], Tensor]


def batch_gradients(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None
) -> Iterator[dict[str, Tensor]]:
    """For each batch the gradients by parameter name; parameters the loss ignores are absent.

    Raises: ScoreError when nothing can be differentiated, a batch is not understood, the loss is
    not a finite number, or there is no batch.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ScoreError(
            "no parameter of the model requires a gradient, so none can be computed; "
            "call model.requires_grad_(True), or use a criterion such as 'l2'"
        )
    device = next(iter(parameters.values())).device
    number = -1
    with evaluating(model):
        for number, batch in enumerate(data):
            batch = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), _plain(batch))
            with torch.enable_grad():
                loss = _loss(model, batch, loss_fn, number)
                _check(loss, number)
                found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            yield {
                name: gradient
                for name, gradient in zip(parameters, found, strict=True)
                if gradient is not None
            }
    if number < 0:
        raise ScoreError("the calibration data holds no batch; pass a loader that is not empty")


def _plain(batch: Any) -> Any:
    """A tokenizer's own mapping becomes a plain dict, which pytree can walk."""
    return dict(batch) if isinstance(batch, Mapping) else batch


def _loss(model: nn.Module, batch: Any, loss_fn: LossFn | None, number: int) -> Any:
    if isinstance(batch, dict):
        outputs = model(**batch)
        if loss_fn is not None:
            return loss_fn(outputs, batch)
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else getattr(outputs, "loss", 0)
        if isinstance(loss, Tensor):
            return loss
        raise ScoreError(
            f"calibration batch {number} is a dict and the model's output has no .loss; "
            "add labels to the batch, or pass loss_fn=lambda outputs, batch: ..."
        )
    if loss_fn is None:
        raise ScoreError(
            f"calibration batch {number} is a {type(batch).__name__}, which needs a loss; "
            "pass loss_fn=torch.nn.functional.cross_entropy"
        )
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise ScoreError(
            f"calibration batch {number} is a {type(batch).__name__}, not a pair (inputs, targets) "
            "and not a dict; write for example data=[(inputs, targets)]"
        )
    inputs, targets = batch
    if isinstance(inputs, Mapping):
        return loss_fn(model(**inputs), targets)
    return loss_fn(model(*inputs) if isinstance(inputs, (tuple, list)) else model(inputs), targets)


def _check(loss: Any, number: int) -> None:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.requires_grad:
        raise ScoreError(
            f"the loss of calibration batch {number} is {_describe(loss)}, not one number that "
            "depends on the model's parameters; return a mean or a sum from loss_fn"
        )
    if not torch.isfinite(loss).all():
        raise ScoreError(
            f"the loss of calibration batch {number} is {loss.item()}; check that batch for NaN "
            "and wrong targets, or leave it out"
        )


def _describe(loss: Any) -> str:
    if not isinstance(loss, Tensor):
        return f"a {type(loss).__name__}"
    return f"a tensor of shape {tuple(loss.shape)}, requires_grad={loss.requires_grad}"
