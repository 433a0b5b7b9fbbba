"""Whether tensors can be scored at all: they have values, and all of them are finite."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph


def check_tensors(graph: Graph, tensors: Mapping[str, Tensor], criterion: str) -> None:
    """Raises: ScoreError for parameters without values, or with some that mean nothing."""
    check_present(graph, tensors, criterion)
    check_finite(graph, tensors)


def check_present(graph: Graph, tensors: Mapping[str, Tensor], criterion: str) -> None:
    """Raises: ScoreError for parameters without values."""
    for name in _parameters(graph):
        if tensors[name].is_meta:
            raise ScoreError(
                f"{name} is on the meta device and has no values for criterion {criterion!r}; "
                "load the model's weights, or use criterion='random'"
            )


def check_finite(
    graph: Graph, tensors: Mapping[str, Tensor], *, known: Collection[str] = ()
) -> None:
    """Raises: ScoreError for parameters with values that mean nothing; those in `known` have
    none."""
    for name in _parameters(graph):
        if name not in known and not finite(tensors[name]):
            raise ScoreError(
                f"{name} holds NaN or infinite values, and a score computed from them means "
                "nothing; load a sound checkpoint, or set them with torch.nan_to_num_"
            )


def _parameters(graph: Graph) -> list[str]:
    # a buffer may hold infinity on purpose, a causal mask does
    return [name for name, kind in graph.tensors.items() if kind.is_parameter]


def finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite; a finite sum tells so in a tenth of the time."""
    dtype = torch.float32 if tensor.dtype.itemsize < 4 else None
    return bool(tensor.detach().sum(dtype=dtype).isfinite()) or bool(tensor.isfinite().all())
