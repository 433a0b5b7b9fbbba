"""Whether tensors can be scored at all: they have values, and all of them are finite."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph


def check_tensors(graph: Graph, tensors: Mapping[str, Tensor], criterion: str) -> None:
    """Raises: ScoreError for parameters without values, or with some that mean nothing."""
    for name, kind in graph.tensors.items():
        tensor = tensors[name]
        if not kind.is_parameter:  # a buffer may hold infinity on purpose, a causal mask does
            continue
        if tensor.is_meta:
            raise ScoreError(
                f"{name} is on the meta device and has no values for criterion {criterion!r}; "
                "load the model's weights, or use criterion='random'"
            )
        if not finite(tensor):
            raise ScoreError(
                f"{name} holds NaN or infinite values, and a score computed from them means "
                "nothing; load a sound checkpoint, or set them with torch.nan_to_num_"
            )


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; a finite sum tells so in a tenth of the time."""
    dtype = torch.float32 if tensor.dtype.itemsize < 4 else None
    return bool(tensor.detach().sum(dtype=dtype).isfinite()) or bool(tensor.isfinite().all())
