"""What a training that several ranks share asks of its loss, its companions and its optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torch.optim import Optimizer

from secateur.core.errors import TrainError
from secateur.engines.shares import Weighing
from secateur.engines.training import Parallel
from secateur.train.companion import Companion

CAUSAL = "CausalLM"
"""In the name that transformers gives to the loss of a model whose labels are shifted by one."""


def weighing_of(loss_fn: Any, model: nn.Module) -> Weighing:
    """What a loss is a mean over; for a function of one's own, samples or labels that count.

    >>> weighing_of(nn.CrossEntropyLoss(ignore_index=255), nn.Identity()).ignored
    255
    """
    shifted = loss_fn is None and CAUSAL in str(getattr(model, "loss_type", ""))
    summed = isinstance(loss_fn, _Loss) and loss_fn.reduction == "sum"
    if isinstance(loss_fn, nn.CrossEntropyLoss | nn.NLLLoss):
        classes: Tensor | None = loss_fn.weight
        return Weighing(ignored=loss_fn.ignore_index, classes=classes, summed=summed)
    return Weighing(summed=summed, shifted=shifted)


def check_together(
    parallel: Parallel,
    companions: Sequence[Companion],
    *,
    optimizer: Optimizer | None,
    learnt: bool,
    precision: str = "float32",
) -> None:
    """Raises: TrainError for what cannot go along where several ranks share a training."""
    if parallel.world.size == 1 and parallel.files is None:
        return
    sharded = parallel.files is not None
    for companion in companions:
        reason = companion.refuses(sharded=sharded)
        if reason is not None:
            way = "parallel: ddp, or one process" if sharded else "one process"
            raise TrainError(
                f"{type(companion).__name__} cannot go along with a training of several ranks: "
                f"{reason}. Train with {way}"
            )
    if sharded and precision == "float16" and parallel.rows.size < parallel.world.size:
        raise TrainError(
            'precision "float16" skips a step whose gradients overflow, and a rank that shares the '
            "model out sees the overflow of its own part alone: the ranks would no longer be one "
            'model. Use precision="bfloat16", which does not overflow, or parallel: fsdp'
        )
    if sharded and optimizer is not None:
        raise TrainError(
            "the optimizer holds whole parameters and the training is to shard them; name one in "
            'the settings instead, for example FinetuneSettings(optimizer="adamw")'
        )
    if sharded and learnt:
        raise TrainError(
            "the objective has parameters of its own (projections between features of different "
            "widths), which are not sharded; train with parallel: ddp, or follow logits"
        )
