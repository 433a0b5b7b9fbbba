"""Static quantization: bytes in, smaller bytes out, that answer nearly the same."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

from secateur.cost.runtimes.feeds import feeds_of
from secateur.cost.runtimes.onnx_export import exported, input_names
from secateur.cost.runtimes.onnx_int8 import quantized


def test_weights_are_int8_by_output_channel():
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 49, 32)
    model, x = nn.Sequential(*layers).eval(), torch.randn(1, 3, 9, 9)
    with torch.no_grad():  # one scale for all channels would lose the small ones
        model[0].weight *= torch.logspace(-2, 0, 16)[:, None, None, None]
    text = exported(model, x)
    names = input_names(text)
    level = logging.getLogger().level
    small = quantized(text, feeds_of([torch.randn(32, 3, 9, 9)], names, like=x))
    assert logging.getLogger().level == level
    assert len(small) < 0.5 * len(text)
    graph = onnx.load_from_string(small).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    assert kinds["0.weight_quantized"] == onnx.TensorProto.INT8
    scales = {t.name: t.dims for t in graph.initializer if t.name.endswith("weight_scale")}
    assert list(scales["0.weight_scale"]) == [16]
    session = onnxruntime.InferenceSession(small, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {names[0]: x.numpy()})
    expected = model(x).detach().numpy()
    assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()
