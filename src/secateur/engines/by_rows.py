"""What the kinds of sharing have in common in which every rank computes its rows of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from secateur.engines.batch_norm import SharedBatchNorm
from secateur.engines.draws import own_draws
from secateur.engines.process_group import ProcessGroup
from secateur.engines.shares import Share
from secateur.engines.training import Moment


@contextmanager
def computing_rows(
    world: ProcessGroup, share: Share, moment: Moment, *, sync_batch_norm: bool
) -> Iterator[None]:
    """The surroundings of a forward and backward over this rank's rows.

    sync_batch_norm: take the statistics of batch norm over the rows of all ranks.
    """
    with ExitStack() as stack:
        stack.enter_context(world.meeting(f"step {moment.step + 1} of the training"))
        stack.enter_context(own_draws(moment, rank=world.rank))
        if sync_batch_norm and share.split:
            stack.enter_context(SharedBatchNorm(world))
        yield


def summed(loss: float, world: ProcessGroup, *, step: int) -> float:
    """The sum of a number over the ranks, the same bits on each."""
    whole = torch.tensor([loss], dtype=torch.float64)
    world.sum_([whole], what=f"the loss of step {step + 1}")
    return float(whole)


def average_statistics_(trained: nn.Module, world: ProcessGroup) -> None:
    """Every buffer becomes its mean over the ranks, where each took its own statistics."""
    buffers = [buffer for buffer in trained.buffers() if buffer.is_floating_point()]
    world.sum_(buffers, what="the statistics of batch norm")
    for buffer in buffers:
        buffer /= world.size
