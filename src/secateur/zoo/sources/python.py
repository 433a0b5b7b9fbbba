"""`python.module:callable`: your own code.

The callable takes nothing and returns a model, or (model, example_inputs). It is called again when
a saved cut is loaded, so it should build the same architecture each time.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from secateur.zoo.loaded import LoadedModel, LoadOptions, unknown


def load(rest: str, options: LoadOptions) -> LoadedModel:
    """Import the module (the working directory counts) and call the callable."""
    callable_ = _find(rest)

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


def _find(rest: str) -> Callable[[], Any]:
    module_name, _, name = rest.partition(":")
    working = str(Path.cwd())
    if working not in sys.path:
        sys.path.insert(0, working)  # as `python -m` does, and a console script does not
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ValueError(
            f"there is no Python module {module_name!r}, and {module_name!r} is no model source; "
            "sources are torchvision, timm and hf; a module must be importable from here"
        ) from error
    found = getattr(module, name, None)
    if found is None:
        raise unknown(f"name in {module_name}", name, [n for n in vars(module) if n[0] != "_"])
    required = [
        parameter.name
        for parameter in inspect.signature(found).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ValueError(f"{rest} needs arguments {required}; give a function that takes none")
    callable_: Callable[[], Any] = found
    return callable_
