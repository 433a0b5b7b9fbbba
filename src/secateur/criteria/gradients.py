"""Gradients of the loss over calibration batches, one batch at a time.

The model is put into eval mode, because a forward in training mode would move the normalisation
statistics; its flags come back afterwards, and `.grad` of its parameters is never touched. A
batch is ``(inputs, targets)``, with `loss_fn(outputs, targets)`, or a dict of keyword arguments,
whose output carries `.loss` or is given to `loss_fn(outputs, batch)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.core.errors import ScoreError
from secateur.core.modes import evaluating
from secateur.core.world import ALONE, World
from secateur.criteria.exact_sums import ExactSums
from secateur.criteria.shares import Numbered, no_batch, numbered, plain

LossFn = Callable[[Any, Any], Tensor]
Gradients = dict[str, Tensor]
"""By parameter name; parameters that the loss ignores are absent."""


def batch_gradients(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None
) -> Iterator[Gradients]:
    """The gradients of each batch.

    Raises: ScoreError when nothing can be differentiated, a batch is not understood, the loss is
    not a finite number, or there is no batch.
    """
    parameters = trainable(model)
    for _, loss in batch_losses(model, data, loss_fn):
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        yield {
            name: gradient
            for name, gradient in zip(parameters, found, strict=True)
            if gradient is not None
        }


def mean_gradients(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None, *, world: World = ALONE
) -> Gradients:
    """The gradients averaged over all ranks' batches, in float32 at least; raises as
    `batch_gradients`."""
    sums = ExactSums(trainable(model))
    for gradients in batch_gradients(model, data, loss_fn):
        sums.add_(gradients)
    sums.reduce_(world, what="mean gradients")
    return sums.means()


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that require a gradient, by name. Raises: ScoreError when none does."""
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise ScoreError(
            "no parameter of the model requires a gradient, so none can be computed; "
            "call model.requires_grad_(True), or use a criterion such as 'l2'"
        )
    return parameters


def batch_losses(
    model: nn.Module, data: Iterable[Any], loss_fn: LossFn | None
) -> Iterator[tuple[int, Tensor]]:
    """Each batch's number and its loss, to be differentiated. Raises: as `batch_gradients`."""
    device = next(iter(trainable(model).values())).device
    known, number = numbered(data), -1
    with evaluating(model):
        for number, batch in known.pairs:
            batch = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(device), plain(batch))
            with torch.enable_grad():
                loss = _loss(model, batch, loss_fn, number)
                _check(loss, number)
            yield number, loss
    if number < 0 and not known.is_share:
        raise no_batch()


def samples_of(data: Iterable[Any]) -> Iterator[Any]:
    """The batches as batches of one sample: every tensor of a batch is cut along its first
    dimension. Raises: ScoreError for a batch whose tensors disagree on how many there are.

    >>> [batch[1].tolist() for batch in samples_of([(torch.zeros(2, 3), torch.tensor([5, 6]))])]
    [[5], [6]]
    """
    return (batch for _, batch in numbered_samples(data).pairs)


def numbered_samples(data: Iterable[Any]) -> Numbered:
    """As `samples_of`, with the number of the batch that each is from."""
    known = numbered(data)
    return Numbered(_samples(known.pairs), known.is_share)


def _samples(pairs: Iterable[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    for number, batch in pairs:
        whole = plain(batch)
        sizes = {t.shape[0] for t in pytree.tree_leaves(whole) if isinstance(t, Tensor) and t.dim()}
        if len(sizes) != 1:
            raise ScoreError(
                f"calibration batch {number} cannot be split into samples: the first dimensions of "
                f"its tensors are {sorted(sizes)}; pass a loader with batch_size=1"
            )
        for k in range(sizes.pop()):
            yield number, pytree.tree_map_only(Tensor, partial(_one_of, k), whole)


def _one_of(k: int, tensor: Tensor) -> Tensor:
    return tensor[k : k + 1] if tensor.dim() else tensor


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
