"""ONNX bytes to ONNX bytes in int8, by static quantization.

It stands here and not in a package of its own, because a budget in int8 measures what it makes: it
knows bytes and arrays, no model and no plan. Quantization of the pruned model calls it from above.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from secateur.cost.runtimes.feeds import Feed


def quantized(text: bytes, feeds: Iterable[Feed]) -> bytes:
    """The model with int8 weights, one scale for each output channel, and uint8 activations.

    Ranges of activations are the least and the largest value that they take over the feeds: real
    inputs, some hundred samples. Quantize and dequantize stand as nodes in the graph (QDQ), which
    ONNX Runtime and OpenVINO fuse into integer kernels. Raises: ValueError when a package is
    missing.

    Source: Jacob et al., CVPR 2018, arXiv 1712.05877; the quantizer is ONNX Runtime's.
    """
    try:
        import onnx
        from onnxruntime import quantization
    except ImportError:
        raise ValueError(
            "int8 needs onnx and onnxruntime: pip install onnx onnxruntime onnxscript"
        ) from None

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        """Hands out one feed after another."""

        def __init__(self) -> None:
            self.left = iter(feeds)

        def get_next(self) -> Any:
            return next(self.left, None)

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(text))
    log = logging.getLogger()
    level = log.level
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "int8.onnx"
        log.setLevel(logging.ERROR)  # it advises a step that the exporter has done
        try:
            quantization.quantize_static(
                model,
                out,
                Reader(),
                quant_format=quantization.QuantFormat.QDQ,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
        finally:
            log.setLevel(level)
        return out.read_bytes()
