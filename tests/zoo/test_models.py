"""Specifications lead to models, and wrong ones to errors that say what to type."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

import secateur.zoo.loaded
from secateur.core import lookup
from secateur.core.errors import StorageError
from secateur.core.fingerprint import fingerprint
from secateur.storage import save
from secateur.zoo.models import SOURCES, load_model

CODE = """
import torch
from torch import nn

def small():
    return nn.Linear(3, 2), torch.ones(4, 3)

def bare():
    return nn.Linear(3, 2)

def wrong():
    return 7

def needy(width):
    return nn.Linear(width, 2)
"""


@pytest.fixture
def code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "my_zoo_code.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return "my_zoo_code"


def run(model: nn.Module, example: object) -> object:
    with torch.no_grad():
        return model(**example) if isinstance(example, dict) else model(example)


def test_torchvision_by_name() -> None:
    pytest.importorskip("torchvision")
    loaded = load_model("torchvision:resnet18", batch=2, image_size=64)
    assert not loaded.model.training
    out = run(loaded.model, loaded.example_inputs)
    assert isinstance(out, torch.Tensor) and out.shape == (2, 1000)
    again = loaded.model_fn()
    assert fingerprint(again) == fingerprint(loaded.model)
    # the same seed gives the same random weights
    assert torch.equal(again.get_parameter("fc.weight"), loaded.model.get_parameter("fc.weight"))
    other = load_model("torchvision:resnet18", seed=1).model
    assert not torch.equal(other.get_parameter("fc.weight"), again.get_parameter("fc.weight"))


def test_timm_by_name() -> None:
    pytest.importorskip("timm")
    loaded = load_model("timm:test_vit")
    out = run(loaded.model, loaded.example_inputs)
    assert isinstance(out, torch.Tensor) and out.shape[0] == 1


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("torchvision:resnet81", r"did you mean 'resnet18'"),
        ("timm:test_vut", r"did you mean 'test_vit"),
        ("resnet18", r"write torchvision:NAME, timm:NAME"),
        ("", r"write torchvision:NAME"),
        ("torchvison:resnet18", r"no Python module 'torchvison'.*sources are torchvision"),
        ("torchvision:fasterrcnn_resnet50_fpn", r"is a detector.*python\.module:function"),
        ("torch.nn:Lineer", r"did you mean 'Linear'"),
    ],
)
def test_wrong_specifications_say_what_to_type(spec: str, said: str) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=said):
        load_model(spec)


def test_python_callable(code: str) -> None:
    loaded = load_model(f"{code}:small")
    out = run(loaded.model, loaded.example_inputs)
    assert isinstance(out, torch.Tensor) and out.shape == (4, 2)
    assert torch.equal(loaded.model_fn().get_parameter("weight"), loaded.model.weight)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("bare", r"without example inputs.*return \(model, example_inputs\)"),
        ("wrong", "returned a int"),
        ("needy", r"needs arguments \['width'\]"),
        ("smell", "did you mean 'small'"),
    ],
)
def test_python_callables_that_cannot_be_used(code: str, name: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        load_model(f"{code}:{name}")


def test_saved_folder_is_rebuilt_from_its_source(code: str, tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    save(model, tmp_path / "out", source=f"{code}:small", example=torch.zeros(5, 3))
    loaded = load_model(str(tmp_path / "out"))
    assert torch.equal(loaded.model.get_parameter("weight"), model.weight)
    assert isinstance(loaded.example_inputs, torch.Tensor)
    assert torch.equal(loaded.example_inputs, torch.zeros(5, 3))
    assert torch.equal(loaded.model_fn().get_parameter("bias"), model.bias)


def test_folders_that_cannot_be_loaded(tmp_path: Path) -> None:
    save(nn.Linear(3, 2), tmp_path / "out")
    with pytest.raises(StorageError, match=r"load it in Python with secateur\.load"):
        load_model(str(tmp_path / "out"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match=r"no manifest\.json.*no config\.json"):
        load_model(str(tmp_path / "empty"))


def test_missing_package_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"pip install 'secateur\[vision\]'"):
        secateur.zoo.loaded.require("no_such_package.models", package="torchvision", extra="vision")


def test_transformers_folder(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=16, num_hidden_layers=1, intermediate_size=20,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    model.save_pretrained(tmp_path / "llama")
    for spec in (str(tmp_path / "llama"), f"hf:{tmp_path / 'llama'}"):
        loaded = load_model(spec)
        assert type(loaded.model) is type(model)
        assert torch.equal(
            loaded.model(**loaded.example_inputs).logits, model(**loaded.example_inputs).logits
        )
        assert fingerprint(loaded.model_fn()) == fingerprint(model)


def test_unknown_hub_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    with pytest.raises(ValueError, match="transformers cannot read hf:/no/such/place"):
        load_model("hf:/no/such/place")


def test_every_source_can_load() -> None:
    for name in lookup.names(SOURCES):
        assert callable(lookup.find(SOURCES, name, kind="model source").load)
