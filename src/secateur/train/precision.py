"""Mixed precision: the forward under autocast, and loss scaling where float16 needs it.

Weights, gradients and optimizer state keep their own type.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from secateur.core.errors import TrainError

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, slots=True)
class MixedPrecision:
    """dtype: of the forward, None for the weights' own. scaler: passes through unless float16."""

    device: torch.device
    dtype: torch.dtype | None
    scaler: torch.amp.GradScaler

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which the loss is computed."""
        if self.dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)


def mixed_precision(name: str, device: torch.device) -> MixedPrecision:
    """The precision called `name` ("float32", "bfloat16" or "float16") on a device.

    Raises: TrainError for float16 on the CPU.
    """
    if name == "float16" and device.type == "cpu":
        raise TrainError(
            'precision "float16" needs a GPU, and the model is on the CPU, where it is slower than '
            "float32 and some layers (LSTM) do not run at all; "
            'use precision="bfloat16", or device="cuda" where there is one'
        )
    scaler = torch.amp.GradScaler(device.type, enabled=name == "float16")
    return MixedPrecision(device, DTYPES.get(name), scaler)
