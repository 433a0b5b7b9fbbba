"""OpenVINO on the CPU: one stream, for the least latency, from the exported ONNX."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from secateur.cost.runtimes.feeds import Feed, feed_of, feeds_of
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
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(how.threads),
        "INFERENCE_PRECISION_HINT": HINTS[how.precision],
        "ENABLE_CPU_PINNING": "NO",  # processes that share a machine choose their cores themselves
    }
    compiled = core.compile_model(core.read_model(text), "CPU", settings)
    request = compiled.create_infer_request()
    feed = feed_of(inputs, names)

    def run() -> list[Any]:
        return _outputs(request, feed)

    return Prepared(model, run, "openvino", how.precision)


def _outputs(request: Any, feed: Feed) -> list[Any]:
    """The outputs in their order, as arrays."""
    found = request.infer(feed, share_inputs=True)
    return [np.asarray(found[number]) for number in range(len(found))]


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
