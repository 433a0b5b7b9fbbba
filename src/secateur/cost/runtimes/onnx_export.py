"""A model as ONNX, which several runtimes read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def exported(model: nn.Module, inputs: Any) -> bytes:
    """The model as ONNX, for inputs of these shapes.

    Raises: ValueError with torch's reason where it cannot be exported.
    """
    args, kwargs = ((), dict(inputs)) if isinstance(inputs, Mapping) else (inputs, {})
    args = args if isinstance(args, tuple) else (args,)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(model, args, kwargs=kwargs, dynamo=True, verbose=False)
        assert program is not None
        text: bytes = program.model_proto.SerializeToString()
    except Exception as error:  # the exporter raises what any of its parts raises
        reason = str(error).strip().splitlines()
        raise ValueError(
            f"{type(model).__name__} cannot be exported to ONNX: "
            f"{reason[0] if reason else type(error).__name__}; measure with runtime='eager'"
        ) from error
    return text


def input_names(text: bytes) -> list[str]:
    """Names of the inputs of ONNX bytes, in their order."""
    import onnx

    graph = onnx.load_from_string(text).graph
    constant = {tensor.name for tensor in graph.initializer}
    return [given.name for given in graph.input if given.name not in constant]
