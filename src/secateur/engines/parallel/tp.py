"""`tp`: every rank holds a part of the units of each layer, and computes all rows.

Which axes can be shared out follows from the model's own graph; see `tensor_parallel`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.core.world import World
from secateur.engines.process_group import ProcessGroup
from secateur.engines.tensor_parallel.training import TensorParallel
from secateur.engines.training import Parallel

SPLITS_ROWS = False


def make(
    world: World,
    *,
    example_inputs: Any,
    model: nn.Module | None = None,
    sync_batch_norm: bool = True,
) -> Parallel:
    """The kind for a world of several processes; batch norm sees all rows on every rank."""
    assert isinstance(world, ProcessGroup)
    return TensorParallel(world, world, inputs=example_inputs)
