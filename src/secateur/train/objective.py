"""The training objective: from a model and a batch to one loss.

`supervised` makes the usual one out of a loss function `(outputs, labels) -> loss`; a model that
computes its own loss, as Hugging Face models do when the batch holds labels, needs none.
Label smoothing, class weights and the like are the loss function's own business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train.batches import predict, split_batch

LossFn = Callable[[Any, Any], Tensor]
Objective = Callable[[nn.Module, Any], Tensor]

# Losses whose labels are class indices: these are checked before the loss is computed, because a
# GPU would answer a wrong label with an assertion that ends the process's use of the device.
CLASS_LOSSES = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
CLASS_FUNCTIONS = (F.cross_entropy, F.nll_loss, F.multi_margin_loss)


def supervised(loss_fn: LossFn | None) -> Objective:
    """The objective for `loss_fn`, or for the model's own `.loss` when it is None.

    For a mapping batch `loss_fn` is called with the model's output and the whole batch.
    """

    def objective(model: nn.Module, batch: Any) -> Tensor:
        return task_loss(model, outputs_for(model, batch), batch, loss_fn)

    return objective


def outputs_for(model: nn.Module, batch: Any, **asked: Any) -> Any:
    """What the model makes of a batch `(x, ..., y)`, or of a mapping with `asked` added to it.

    Raises: TrainError for a batch of another kind, and for labels that a mapping's model refuses.
    """
    if not isinstance(batch, Mapping):
        return predict(model, split_batch(batch)[0])
    try:
        return model(**{**batch, **asked})
    except IndexError as error:
        labels = batch.get("labels")
        if not isinstance(labels, Tensor):
            raise
        raise TrainError(
            f"the model refused the batch ({error}); its labels run from {int(labels.min())} to "
            f"{int(labels.max())}. Renumber the labels from 0, or give the model's config enough "
            "labels (num_labels) or a large enough vocabulary"
        ) from error


def task_loss(model: nn.Module, outputs: Any, batch: Any, loss_fn: LossFn | None) -> Tensor:
    """The loss of outputs against the batch's labels. Raises: TrainError."""
    if not isinstance(batch, Mapping):
        if loss_fn is None:
            raise TrainError(
                "the batches are (x, y) tuples and there is no loss_fn; "
                "give one, for example loss_fn=torch.nn.CrossEntropyLoss()"
            )
        return _checked_loss(loss_fn, outputs, split_batch(batch)[1])
    loss = loss_fn(outputs, batch) if loss_fn else getattr(outputs, "loss", None)
    if not isinstance(loss, Tensor):
        raise TrainError(
            f"{type(model).__name__} returned no loss for a batch with the keys "
            f"{', '.join(batch)}; add 'labels' to the batches, or give loss_fn(outputs, batch)"
        )
    return loss


def check_labels(outputs: Any, labels: Any, *, ignored: int = -100) -> None:
    """Check class indices against the number of outputs (dimension 1).

    Raises: TrainError that names the smallest and largest label. Labels that are no class indices
    (floating point, or of another shape) pass.
    """
    if not isinstance(outputs, Tensor) or not isinstance(labels, Tensor) or outputs.ndim < 2:
        return
    if labels.dtype.is_floating_point or labels.shape != (outputs.shape[0], *outputs.shape[2:]):
        return
    used = labels[labels != ignored]
    if used.numel() == 0:
        return
    least, most = (int(bound) for bound in torch.aminmax(used))
    classes = outputs.shape[1]
    if least < 0 or most >= classes:
        raise TrainError(
            f"labels run from {least} to {most}, but the model has {classes} outputs, so labels "
            f"must lie in 0..{classes - 1} (batch of shape {tuple(labels.shape)}). Renumber the "
            f"labels from 0, or give the model {most + 1} outputs"
        )


def _checked_loss(loss_fn: LossFn, outputs: Any, labels: Any) -> Tensor:
    ignored = loss_fn.ignore_index if isinstance(loss_fn, CLASS_LOSSES[:2]) else -100
    if isinstance(loss_fn, CLASS_LOSSES) or loss_fn in CLASS_FUNCTIONS:
        check_labels(outputs, labels, ignored=ignored)
    try:
        return loss_fn(outputs, labels)
    except (IndexError, RuntimeError):
        check_labels(outputs, labels)  # a clearer error, if this was the reason
        raise
