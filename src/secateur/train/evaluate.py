"""Accuracy and mean loss of a model on data, with the predictions for a closer look.

The model is put into eval mode and given back in the modes it was in. No gradients, no change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.core.modes import evaluating
from secateur.core.world import ALONE, World
from secateur.train.batches import device_of, predict, samples_in, split_batch, to_device
from secateur.train.objective import LossFn, check_labels, supervised


@dataclass(frozen=True, slots=True)
class Evaluation:
    """accuracy: share of samples whose largest output is the label, in [0, 1]. loss: mean over
    samples, None without a loss. predictions, labels: int64 of shape [samples], on the CPU."""

    accuracy: float
    loss: float | None
    predictions: Tensor
    labels: Tensor


def accuracy(model: nn.Module, data: Iterable[Any], *, world: World = ALONE) -> float:
    """Top-1 accuracy in [0, 1]. world: of ranks that take the batches in turns, and all call this.

    >>> data = [(torch.eye(3), torch.tensor([0, 1, 1]))]
    >>> round(accuracy(nn.Identity(), data), 3)
    0.667
    """
    if world.size == 1:
        return evaluate(model, data).accuracy
    batches = list(data)
    sums = torch.zeros(2, dtype=torch.float64)
    for first in range(0, len(batches), world.size):
        # as many forwards on every rank, for a sharded model needs all of them in each
        mine = min(first + world.rank, len(batches) - 1)
        found = evaluate(model, [batches[mine]])
        if mine == first + world.rank:
            correct = int((found.predictions == found.labels).sum())
            sums += torch.tensor([correct, len(found.labels)], dtype=torch.float64)
    world.sum_([sums], what="the accuracy")
    return float(sums[0]) / _not_empty(int(sums[1]))


def mean_loss(model: nn.Module, data: Iterable[Any], *, loss_fn: LossFn | None = None) -> float:
    """Mean loss over samples; without `loss_fn` the model's own, as Hugging Face models give it."""
    objective, total, count = supervised(loss_fn), 0.0, 0
    with evaluating(model), torch.no_grad():
        for batch in data:
            moved = to_device(batch, device_of(model))
            samples = samples_in(moved)
            total += float(objective(model, moved)) * samples
            count += samples
    return total / _not_empty(count)


def evaluate(model: nn.Module, data: Iterable[Any], *, loss_fn: LossFn | None = None) -> Evaluation:
    """Accuracy, predictions and, with `loss_fn(outputs, labels)`, the mean loss.

    For classification: outputs of shape [samples, classes] and one label a sample; mapping
    batches need "labels" and a model that returns `.logits`.
    Raises: TrainError for empty data, and for outputs or labels of another kind.
    """
    predictions, labels, total = [], [], 0.0
    with evaluating(model), torch.no_grad():
        for batch in data:
            outputs_BC, labels_B = _outputs_and_labels(model, to_device(batch, device_of(model)))
            check_labels(outputs_BC, labels_B)
            if loss_fn is not None:
                total += float(loss_fn(outputs_BC, labels_B)) * len(labels_B)
            predictions.append(outputs_BC.argmax(dim=1).cpu())
            labels.append(labels_B.to("cpu", torch.int64))
    count = _not_empty(sum(len(part) for part in labels))
    predicted, true = torch.cat(predictions), torch.cat(labels)
    correct = int((predicted == true).sum())
    return Evaluation(correct / count, total / count if loss_fn else None, predicted, true)


def _outputs_and_labels(model: nn.Module, batch: Any) -> tuple[Tensor, Tensor]:
    if isinstance(batch, Mapping):
        outputs, labels = getattr(model(**batch), "logits", None), batch.get("labels")
    else:
        inputs, labels = split_batch(batch)
        outputs = predict(model, inputs)
    if (
        isinstance(outputs, Tensor)
        and isinstance(labels, Tensor)
        and outputs.ndim == 2
        and labels.shape == outputs.shape[:1]
        and not labels.dtype.is_floating_point
    ):
        return outputs, labels
    raise TrainError(
        f"accuracy needs outputs [samples, classes] and whole labels [samples], not "
        f"{_shape(outputs)} and {_shape(labels)}; give a metric of your own as validate, for "
        "example one that returns -mean_loss(model, data)"
    )


def _shape(value: Any) -> str:
    return f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else str(type(value))


def _not_empty(count: int) -> int:
    if count == 0:
        raise TrainError("the data is empty: there is no batch to evaluate; give at least one")
    return count
