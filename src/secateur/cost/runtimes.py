"""A model made ready to run: as it is, compiled by torch, or as an ONNX Runtime session.

What is measured is what will be served, so a budget of latency names its runtime. A prepared model
is a call without arguments on example inputs that were given once.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

RUNTIMES = ("eager", "compile", "onnxruntime")


@dataclass(frozen=True)
class Prepared:
    """A model and one forward of it in a runtime."""

    model: nn.Module
    run: Callable[[], Any]
    runtime: str = "eager"


def prepare(
    model: nn.Module, inputs: Any, *, runtime: str = "eager", threads: int | None = None
) -> Prepared:
    """The forward of a model in evaluation mode on inputs: a tensor, a tuple, or a dict by keyword.

    threads: of a session of ONNX Runtime, torch's present number where None; torch itself is told
    by `torch.set_num_threads`. Raises: ValueError for an unknown runtime, one that is not
    installed, or a model that it cannot take, with the reason.
    """
    if runtime == "eager":
        return Prepared(model, call_of(model, inputs))
    if runtime == "compile":
        return Prepared(model, call_of(torch.compile(model), inputs), runtime)
    if runtime == "onnxruntime":
        return Prepared(model, _session(model, inputs, threads), runtime)
    raise ValueError(f"runtime {runtime!r} is unknown; one of {', '.join(RUNTIMES)}")


def call_of(model: Callable[..., Any], inputs: Any) -> Callable[[], Any]:
    """A forward on example inputs: a tensor, a tuple of arguments or a dict of keyword ones."""
    if isinstance(inputs, Mapping):
        return partial(model, **inputs)
    return partial(model, *(inputs if isinstance(inputs, tuple | list) else (inputs,)))


def _session(model: nn.Module, inputs: Any, threads: int | None) -> Callable[[], Any]:
    try:
        import onnxruntime
    except ImportError:
        raise ValueError(
            "runtime 'onnxruntime' needs onnxruntime and onnxscript: "
            "pip install onnx onnxruntime onnxscript"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        exported(model, inputs), options, providers=["CPUExecutionProvider"]
    )
    names = [node.name for node in session.get_inputs()]
    tensors = [leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor)]
    by_name = (
        dict(inputs) if isinstance(inputs, Mapping) else dict(zip(names, tensors, strict=False))
    )
    feed = {name: by_name[name].detach().cpu().numpy() for name in names}
    return partial(session.run, None, feed)


def exported(model: nn.Module, inputs: Any) -> bytes:
    """The model as ONNX. Raises: ValueError with torch's reason where it cannot be exported."""
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
