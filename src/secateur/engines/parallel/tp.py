"""`tp`: every rank holds a part of the units of each layer, and computes all rows.

Which axes can be shared out follows from the model's own graph; see `tensor_parallel`. With fewer
ranks to a model than there are, the sets of them share the batches by another kind.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.core.world import World
from secateur.engines.process_group import ProcessGroup
from secateur.engines.tensor_parallel.training import share_out
from secateur.engines.training import Parallel


def make(
    world: World,
    *,
    example_inputs: Any,
    model: nn.Module | None = None,
    sync_batch_norm: bool = True,
    size: int | None = None,
    outer: str = "ddp",
) -> Parallel:
    """The kind for a world of several processes. size: how many share the model out, all where it
    is not said; see `share_out`."""
    assert isinstance(world, ProcessGroup)
    size = world.size if size is None else size
    how: dict[str, Any] = {"outer": outer, "sync_batch_norm": sync_batch_norm}
    return share_out(world, inputs=example_inputs, size=size, **how)
