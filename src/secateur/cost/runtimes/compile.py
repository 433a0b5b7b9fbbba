"""Torch with `torch.compile`; bf16 as in eager.

It compiles at the first forward, which is therefore made at once.
"""

from __future__ import annotations

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
    runs, given = in_bf16(model, inputs) if how.precision == "bf16" else (model, inputs)
    run = call_of(torch.compile(runs), given)
    try:
        run()
    except Exception as error:  # the compiler raises what any of its parts raises
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{type(model).__name__} cannot be compiled: "
            f"{reason[0] if reason else type(error).__name__}; measure with runtime='eager'"
        ) from error
    return Prepared(model, run, "compile", how.precision)
