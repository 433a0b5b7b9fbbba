"""OpenVINO on the CPU: one stream, for the least latency, from the exported ONNX."""

from __future__ import annotations

import time
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from torch import nn

from secateur.cost.runtimes.feeds import Feed, feed_of, feeds_of
from secateur.cost.runtimes.node_times import FEWEST, PASSES, SECONDS, module_times
from secateur.cost.runtimes.onnx_export import exported, input_names
from secateur.cost.runtimes.onnx_int8 import quantized
from secateur.cost.runtimes.prepared import How, Prepared

PRECISIONS = ("fp32", "bf16", "int8")
PACKAGE = "openvino"
HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""What is computed in where the model does not say: by itself OpenVINO takes bf16 for speed."""


def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """A request of the compiled model; int8 is that of ONNX Runtime's quantizer.

    Raises: ValueError where the package is missing, or the processor has no bfloat16.
    """
    core = _package().Core()
    known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if how.precision == "bf16" and "BF16" not in known:
        raise ValueError(
            f"this processor has no bfloat16 for OpenVINO, only {', '.join(known)}; write "
            "precision='fp32' or 'int8'"
        )
    text = exported(model, inputs)
    names = input_names(text)
    if how.precision == "int8":
        text = quantized(text, feeds_of(how.calibration or [inputs], names, like=inputs))
    request = _request(core, text, how)
    feed = feed_of(inputs, names)
    return Prepared(
        model,
        partial(_outputs, request, feed),
        "openvino",
        how.precision,
        own_times=partial(_own_times, core, text, how, feed, model),
        on=lambda given: _outputs(request, feed_of(given, names)),
    )


def _request(core: Any, text: bytes, how: How, *, profile: bool = False) -> Any:
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(how.threads),
        "INFERENCE_PRECISION_HINT": HINTS[how.precision],
        "ENABLE_CPU_PINNING": "NO",  # processes that share a machine choose their cores themselves
        "PERF_COUNT": "YES" if profile else "NO",
    }
    return core.compile_model(core.read_model(text), "CPU", settings).create_infer_request()


def _own_times(core: Any, text: bytes, how: How, feed: Feed, model: nn.Module) -> dict[str, float]:
    """What each module takes, in a request of its own: a profile slows what it looks at."""
    request = _request(core, text, how, profile=True)
    sums: list[dict[tuple[str, str], float]] = [{}]
    started = time.perf_counter()
    while len(sums) <= FEWEST or (
        len(sums) <= PASSES + 1 and time.perf_counter() - started < SECONDS
    ):
        _outputs(request, feed)
        sums.append(_sums(request, len(sums)))
    forwards = [
        [(*node, max(0.0, ms - before.get(node, 0.0))) for node, ms in after.items()]
        for before, after in pairwise(sums)
    ]
    return module_times(text, forwards, [path for path, _ in model.named_modules()])


def _sums(request: Any, forwards: int) -> dict[tuple[str, str], float]:
    """Milliseconds of each node in all forwards so far: the profile gives the mean over them."""
    return {
        (node.node_name, node.node_type): 1e3 * node.real_time.total_seconds() * forwards
        for node in request.profiling_info
        if node.real_time
    }


def _outputs(request: Any, feed: Feed) -> list[Any]:
    """The outputs in their order, as arrays."""
    found = request.infer(feed, share_inputs=True)
    return [np.array(found[number]) for number in range(len(found))]


def _package() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import openvino
    except ImportError:
        raise ValueError(
            "runtime 'openvino' needs openvino, onnx and onnxscript: "
            "pip install openvino onnx onnxscript"
        ) from None
    return openvino
