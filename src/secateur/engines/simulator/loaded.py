"""A workload from a model that is at hand, wrapped and shared out as recovery does it here."""

from __future__ import annotations

from typing import Any

from torch import nn

from secateur.core.fingerprint import named_modules
from secateur.engines.parallel.fsdp import blocks_of
from secateur.engines.simulator.graph_workload import workload_of
from secateur.engines.simulator.workload import Workload
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.graph import trace


def workload_of_model(
    model: nn.Module, example_inputs: Any, *, name: str = "model", tp: int = 1
) -> Workload:
    """What a model is to the simulator at a batch; the model is unchanged.

    tp: ranks that share its layers out; the sizes are then those of the first of them.
    Raises: TraceError; EngineError where a plan for these ranks cannot be made.
    """
    graph = trace(model, example_inputs)
    names = {module: path for path, module in named_modules(model)}
    plan = None if tp == 1 else tensor_parallel_plan(model, graph, example_inputs, size=tp)
    units = tuple(names[block] for block in blocks_of(model))
    return workload_of(graph, name=name, units=units, shared_out=plan)
