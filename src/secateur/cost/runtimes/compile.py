"""Torch with `torch.compile`; bf16 as in eager.

It compiles at the first forward, which is therefore made at once.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from secateur.cost.runtimes.eager import PRECISIONS as EAGER
from secateur.cost.runtimes.eager import in_bf16
from secateur.cost.runtimes.prepared import How, Prepared, call_of

PRECISIONS = EAGER
PACKAGE = "torch"


@torch.inference_mode()
def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """The compiled model, compiled. Raises: ValueError with torch's reason where it cannot be."""
    low = how.precision == "bf16"
    compiled = torch.compile(copy.deepcopy(model).bfloat16() if low else model)

    def on(given: Any) -> Any:
        return call_of(compiled, in_bf16(given) if low else given)()

    run = call_of(compiled, in_bf16(inputs) if low else inputs)
    try:
        run()
    except Exception as error:  # the compiler raises what any of its parts raises
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{type(model).__name__} cannot be compiled: "
            f"{reason[0] if reason else type(error).__name__}; measure with runtime='eager'"
        ) from error
    return Prepared(model, run, "compile", how.precision, on=on)
