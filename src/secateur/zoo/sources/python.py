"""`python.module:callable`: your own code.

The callable takes nothing and returns a model, or (model, example_inputs). It is called again when
a saved cut is loaded, so it should build the same architecture each time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from secateur.zoo.loaded import LoadedModel, LoadOptions
from secateur.zoo.own_code import find_callable


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Import the module (the working directory counts) and call the callable."""
    callable_ = find_callable(rest, kind="model source", known="torchvision, timm and hf")

    def build() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            return callable_()

    built = build()
    model, example = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    if not isinstance(model, nn.Module):
        raise ValueError(
            f"{rest} returned a {type(model).__name__}; it must return an nn.Module, or "
            "(nn.Module, example_inputs)"
        )
    example = getattr(model, "example_input_array", None) if example is None else example
    if example is None:
        raise ValueError(
            f"{rest} returned a model without example inputs, and none can be derived from a "
            f"{type(model).__name__}; return (model, example_inputs), for example "
            "(model, torch.zeros(1, 3, 224, 224))"
        )

    def model_fn() -> nn.Module:
        again = build()
        rebuilt: nn.Module = again[0] if isinstance(again, tuple) else again
        return rebuilt

    return LoadedModel(model, example, model_fn, rest.rpartition(":")[2])
