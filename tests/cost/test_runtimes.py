"""Models made ready for a runtime and a precision compute what they compute."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from secateur.core import lookup
from secateur.cost.latency import Latency, measure_latency
from secateur.cost.runtimes.prepared import RUNTIMES, Prepared, check, prepare, version_of
from secateur.demo import DigitsCNN
from secateur.train import FinetuneSettings, TensorBatches, finetune
from secateur.zoo.data import Data, load_data

MODULES = {name: lookup.find(RUNTIMES, name, kind="runtime") for name in lookup.names(RUNTIMES)}
FORMS = [(name, precision) for name, module in MODULES.items() for precision in module.PRECISIONS]


class Two(nn.Module):
    """Arguments by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, *, left: Tensor, right: Tensor) -> Tensor:
        return self.layer(torch.cat([left, right], 1)).relu()


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 49, 5)
    return nn.Sequential(*layers).eval()


def onnx_runtime() -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")


def test_what_there_is_not_is_said():
    with pytest.raises(ValueError, match="there are: compile, eager, onnxruntime, openvino"):
        prepare(nn.Linear(2, 2), torch.zeros(1, 2), runtime="tensorrt")
    with pytest.raises(ValueError, match=r"'eager' has fp32, bf16, not 'int8'; int8 is in onnx"):
        prepare(nn.Linear(2, 2), torch.zeros(1, 2), precision="int8")
    with pytest.raises(ValueError, match=r"'onnxruntime' has fp32, int8, not 'fp8'$"):
        check("onnxruntime", "fp8")
    assert version_of("eager") == version_of("compile") and version_of("eager")


def test_eager_is_the_model_itself():
    model, x = nn.Linear(4, 2), torch.randn(3, 4)
    assert torch.equal(prepare(model, x).run(), model(x))
    named = {"left": torch.randn(2, 4), "right": torch.randn(2, 2)}
    both = Two()
    assert torch.equal(prepare(both, named).run(), both(**named))


def test_bfloat16_is_of_a_copy():
    model, x = small(), torch.randn(2, 3, 9, 9)
    ready = prepare(model, x, precision="bf16")
    assert ready.run().dtype is torch.bfloat16
    torch.testing.assert_close(ready.run().float(), model(x), rtol=0.05, atol=0.05)
    assert ready.on is not None and torch.equal(ready.on(x), ready.run())
    assert {p.dtype for p in model.parameters()} == {torch.float32} and ready.model is model
    measured = measure_latency({"a": model}, x, rounds=5, precision="bf16")
    assert measured["a"].dtype == "bfloat16"

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x + torch.zeros(2, dtype=torch.float32))

    with pytest.raises(ValueError, match=r"Mixed does not run when cast to bfloat16: .*'fp32'"):
        prepare(Mixed(), torch.zeros(1, 2), precision="bf16")


def test_onnx_runtime_gives_the_same_answers():
    onnx_runtime()
    model, x = small(), torch.randn(2, 3, 9, 9)
    ready = prepare(model, x, runtime="onnxruntime", threads=1)
    np.testing.assert_allclose(ready.run()[0], model(x).detach(), rtol=1e-4, atol=1e-5)
    other = torch.randn(2, 3, 9, 9)
    assert ready.on is not None and ready.own_times is not None
    np.testing.assert_allclose(ready.on(other)[0], model(other).detach(), rtol=1e-4, atol=1e-5)
    own = ready.own_times()
    assert all(ms >= 0 for ms in own.values()) and own["0"] > 0 and own["4"] > 0
    assert "1" not in own  # normalisation is folded into the convolution


def test_what_cannot_be_exported_is_said():
    onnx_runtime()

    class Strange(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tensor(sorted(x.tolist()))

    with pytest.raises(ValueError, match=r"Strange cannot be exported to ONNX: .*'eager'"):
        prepare(Strange(), torch.ones(2), runtime="onnxruntime")


def test_latency_names_its_runtime():
    measured = measure_latency({"a": nn.Linear(4, 4).eval()}, torch.zeros(1, 4), rounds=5)
    assert measured["a"].runtime == "eager"
    body = measured["a"].to_json()
    assert Latency.from_json(body) == measured["a"]
    del body["runtime"]  # as written before there was a choice
    assert Latency.from_json(body).runtime == "eager"


def test_rounds_end_in_time():
    model, x = nn.Linear(4, 4).eval(), torch.zeros(1, 4)
    assert len(measure_latency({"a": model}, x, rounds=5, seconds=0.0)["a"].samples_ms) == 1
    warm = prepare(model, x)
    again = measure_latency({"a": warm}, x, rounds=5, seconds=60.0)["a"]
    assert len(again.samples_ms) == 5 and again.repeats > 1


@cache
def trained() -> tuple[nn.Module, Data]:
    """A network that reads digits."""
    torch.manual_seed(0)
    data, model = load_data("digits"), DigitsCNN()
    batches = TensorBatches(*data.train.tensors, batch_size=64, seed=0)
    finetune(
        model, batches, settings=FinetuneSettings(epochs=4, progress=False), loss_fn=F.cross_entropy
    )
    return model.eval(), data


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compilers and exporters
@pytest.mark.parametrize(("runtime", "precision"), FORMS)
def test_answers_on_inputs_by_keyword(runtime: str, precision: str):
    needed(runtime)
    named = {"left": torch.randn(2, 4), "right": torch.randn(2, 2)}
    both = Two().eval()
    found = made_or_skipped(both, named, runtime, precision).run()
    expected = both(**named).detach()
    logits = torch.as_tensor(found if isinstance(found, Tensor) else found[0]).float()
    assert (logits - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("runtime", "precision"), FORMS)
def test_answers_on_real_data(runtime: str, precision: str):
    needed(runtime)
    model, data = trained()
    images = data.test.tensors[0][:256]
    calibration = [data.train.tensors[0][:300]]
    ready = made_or_skipped(model, images, runtime, precision, calibration)
    with torch.inference_mode():
        expected = model(images)
        assert ready.on is not None
        for found in (ready.run(), ready.on(images)):
            check_close(found, expected, precision)


def needed(runtime: str) -> None:
    pytest.importorskip(MODULES[runtime].PACKAGE)
    if runtime in ("onnxruntime", "openvino"):
        onnx_runtime()


def made_or_skipped(
    model: nn.Module, inputs: Any, runtime: str, precision: str, calibration: Sequence[Any] = ()
) -> Prepared:
    """Ready, or skipped where the processor has no bfloat16."""
    try:
        return prepare(
            model, inputs, runtime=runtime, precision=precision, threads=1, calibration=calibration
        )
    except ValueError as error:
        if "has no bfloat16" not in str(error):
            raise
        pytest.skip(str(error))


def check_close(found: Any, expected: Tensor, precision: str) -> None:
    """The same logits; in int8 the same answers, nearly always."""
    logits = torch.as_tensor(found if isinstance(found, Tensor) else found[0]).float()
    allowed = {"fp32": 1e-4, "bf16": 0.03, "int8": 0.1}[precision]
    assert (logits - expected).abs().max() <= allowed * expected.abs().max()
    agreement = (logits.argmax(1) == expected.argmax(1)).float().mean()
    assert agreement >= {"fp32": 1.0, "bf16": 0.98, "int8": 0.98}[precision]
