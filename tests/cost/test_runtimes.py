"""Models made ready for a runtime compute what they compute."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from secateur.cost.latency import Latency, measure_latency
from secateur.cost.runtimes.prepared import prepare


class Two(nn.Module):
    """Arguments by keyword, of which one changes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, *, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.cat([left, right], 1)).relu()


def test_an_unknown_runtime_is_said():
    with pytest.raises(ValueError, match="there are: compile, eager, onnxruntime"):
        prepare(nn.Linear(2, 2), torch.zeros(1, 2), runtime="tensorrt")


def test_eager_is_the_model_itself():
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    assert torch.equal(prepare(model, x).run(), model(x))
    named = {"left": torch.randn(2, 4), "right": torch.randn(2, 2)}
    both = Two()
    assert torch.equal(prepare(both, named).run(), both(**named))


def test_onnx_runtime_gives_the_same_answers():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval(), torch.randn(2, 3, 9, 9)
    (found,) = prepare(model, x, runtime="onnxruntime", threads=1).run()
    np.testing.assert_allclose(found, model(x).detach().numpy(), rtol=1e-4, atol=1e-5)
    named = {"left": torch.randn(2, 4), "right": torch.randn(2, 2)}
    both = Two().eval()
    (found,) = prepare(both, named, runtime="onnxruntime", threads=1).run()
    np.testing.assert_allclose(found, both(**named).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_exported_is_said():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")

    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.tensor(sorted(x.tolist()))

    with pytest.raises(ValueError, match=r"Strange cannot be exported to ONNX: .*'eager'"):
        prepare(Strange(), torch.ones(2), runtime="onnxruntime")


def test_latency_names_its_runtime():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model = nn.Linear(4, 4).eval()
    measured = measure_latency({"a": model}, torch.zeros(1, 4), rounds=5, runtime="onnxruntime")
    assert measured["a"].runtime == "onnxruntime"
    body = measured["a"].to_json()
    assert Latency.from_json(body) == measured["a"]
    del body["runtime"]  # as written before there was a choice
    assert Latency.from_json(body).runtime == "eager"
