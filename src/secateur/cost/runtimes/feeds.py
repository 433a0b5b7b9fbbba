"""Example inputs as the named arrays that a runtime is fed with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree

from secateur.cost.batch import resize_batch

Feed = dict[str, NDArray[np.generic]]


def feed_of(inputs: Any, names: Sequence[str]) -> Feed:
    """The tensors of inputs by the names that the runtime has for them, in their order.

    >>> list(feed_of((torch.zeros(1), torch.ones(1)), ["x", "y"]))
    ['x', 'y']
    """
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    by_name: Mapping[str, Any] = (
        inputs if isinstance(inputs, Mapping) else dict(zip(names, tensors, strict=False))
    )
    return {name: by_name[name].detach().cpu().numpy() for name in names}


def feeds_of(batches: Sequence[Any], names: Sequence[str], *, like: Any) -> Iterator[Feed]:
    """Feeds of the batch that `like` has, out of batches of any size; what is left over is not fed.

    Raises: ValueError where the batches do not fill one feed.
    """
    _, size = resize_batch(like, None)
    fed = 0
    for inputs in batches:
        _, count = resize_batch(inputs, None)
        for start in range(0, count - size + 1, size):
            fed += 1
            yield feed_of(_rows(inputs, count, slice(start, start + size)), names)
    if not fed:
        raise ValueError(
            f"calibration batches do not hold the {size} samples of one forward; give larger ones, "
            "or a smaller batch_size"
        )


def _rows(inputs: Any, count: int, rows: slice) -> Any:
    def part(tensor: Tensor) -> Tensor:
        return tensor[rows] if tensor.dim() and tensor.shape[0] == count else tensor

    return pytree.tree_map_only(torch.Tensor, part, inputs)
