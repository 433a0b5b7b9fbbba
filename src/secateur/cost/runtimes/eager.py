"""Torch as it is.

In bf16 a copy of the model and its inputs are cast, weights and activations alike: that is what
would be served, where autocast would cast the weights anew in every forward.
"""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.cost.runtimes.prepared import How, Prepared, call_of

PRECISIONS = ("fp32", "bf16")
PACKAGE = "torch"


def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """The model itself, or its copy in bfloat16. Raises: ValueError where that does not run."""
    if how.precision == "fp32":
        return Prepared(model, call_of(model, inputs), on=partial(_called, model))
    cast = copy.deepcopy(model).bfloat16()
    run = call_of(cast, in_bf16(inputs))
    try:
        with torch.inference_mode():
            run()
    except RuntimeError as error:
        raise ValueError(
            f"{type(model).__name__} does not run when cast to bfloat16: "
            f"{str(error).splitlines()[0]}; measure with precision='fp32'"
        ) from error
    return Prepared(model, run, "eager", "bf16", on=lambda given: _called(cast, in_bf16(given)))


def _called(model: nn.Module, inputs: Any) -> Any:
    return call_of(model, inputs)()


def in_bf16(inputs: Any) -> Any:
    """Inputs with all that is floating point in bfloat16."""

    def cast(tensor: Tensor) -> Tensor:
        return tensor.bfloat16() if tensor.is_floating_point() else tensor

    return pytree.tree_map_only(Tensor, cast, inputs)
