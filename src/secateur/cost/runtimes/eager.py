"""Torch as it is.

In bf16 a copy of the model and its inputs are cast, weights and activations alike: that is what
would be served, where autocast would cast the weights anew in every forward.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.cost.runtimes.prepared import How, Prepared, call_of

PRECISIONS = ("fp32", "bf16")
PACKAGE = "torch"


def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """The model itself, or its copy in bfloat16. Raises: ValueError where that does not run."""
    made = Prepared(model, call_of(model, inputs), "eager", how.precision)
    if how.precision == "fp32":
        return made
    run = call_of(*in_bf16(model, inputs))
    try:
        with torch.inference_mode():
            run()
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} does not run when cast to bfloat16: "
            f"{str(error).splitlines()[0]}; measure with precision='fp32'"
        ) from error
    return replace(made, run=run)


def in_bf16(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """A copy of a model and its inputs, all that is floating point in bfloat16."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.bfloat16() if tensor.is_floating_point() else tensor

    return copy.deepcopy(model).bfloat16(), pytree.tree_map_only(Tensor, cast, inputs)
