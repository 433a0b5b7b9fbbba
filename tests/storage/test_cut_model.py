"""A cut model saved with its plan is rebuilt from the dense one, in another process too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from secateur.core.errors import PlanMismatchError, StorageError
from secateur.core.plan import Plan
from secateur.criteria.score import score
from secateur.cut.apply import cut
from secateur.cut.verify import verify
from secateur.graph import trace
from secateur.select.plan import plan as make_plan
from secateur.storage import load, save
from secateur.storage.huggingface import expressible

CODE = '''
import torch
from torch import nn

class Net(nn.Module):
    """A residual pair, a split and a buffer that a cut slices and no state dict holds."""

    def __init__(self, width: int = 12) -> None:
        super().__init__()
        self.width = width
        self.first = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        scale = torch.linspace(0.5, 2, width)[:, None, None]
        self.register_buffer("scale", scale, persistent=False)
        self.head = nn.Linear(width, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.first(x)) * self.scale
        x = x + torch.relu(self.second(torch.relu(x)))
        return self.head(x.view(x.shape[0], self.width, -1).mean(2))

def model_fn() -> nn.Module:
    return Net().eval()
'''
INPUT = torch.linspace(-1, 1, 3 * 6 * 6).reshape(1, 3, 6, 6)


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("code")
    (folder / "net_code.py").write_text(CODE)
    sys.path.insert(0, str(folder))
    import net_code

    yield net_code
    sys.path.remove(str(folder))


def planned(model: nn.Module, inputs: Any) -> tuple[nn.Module, Plan]:
    graph = trace(model, inputs)
    plan = make_plan(graph, score(graph, model), keep=0.5)
    small = cut(model, plan)
    verify(model, small, plan, inputs)
    return small, plan


@pytest.fixture
def saved(code: Any, tmp_path: Path) -> tuple[nn.Module, Path]:
    small, plan = planned(code.model_fn(), INPUT)
    save(small, tmp_path / "out", plan=plan, example=INPUT)
    return small, tmp_path / "out"


def test_cut_model_is_rebuilt_from_the_plan(code: Any, saved: tuple[nn.Module, Path]) -> None:
    small, folder = saved
    loaded = load(folder, code.model_fn)
    assert loaded.get_parameter("first.weight").shape == (6, 3, 3, 3)
    assert loaded.width == small.width == 6
    assert torch.equal(loaded.get_buffer("scale"), small.get_buffer("scale"))
    assert torch.equal(loaded.eval()(INPUT), small.eval()(INPUT))
    written = {path.name for path in folder.iterdir()}
    assert written == {
        "model.safetensors", "buffers.safetensors", "example.safetensors", "plan.json",
        "manifest.json",
    }  # fmt: skip
    manifest = json.loads((folder / "manifest.json").read_text())
    assert ["", "width", None, 12, 6] in manifest["changes"]


def test_another_process_computes_the_same(
    code: Any, saved: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    small, folder = saved
    script = (
        "import sys, torch, net_code\n"
        "from safetensors.torch import save_file\n"
        "from secateur.storage import load\n"
        "from secateur.storage.layout import load_example\n"
        "torch.set_num_threads(1)\n"
        "model = load(sys.argv[1], net_code.model_fn).eval()\n"
        "save_file({'out': model(load_example(sys.argv[1])).detach()}, sys.argv[2])\n"
    )
    source = Path(__file__).parents[2] / "src"
    places = os.pathsep.join([str(source), str(Path(code.__file__).parent)])
    subprocess.run(
        [sys.executable, "-c", script, str(folder), str(tmp_path / "out.safetensors")],
        check=True,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert torch.equal(load_file(tmp_path / "out.safetensors")["out"], small.eval()(INPUT))


def test_another_dense_model_is_refused_with_its_differences(
    code: Any, saved: tuple[nn.Module, Path]
) -> None:
    with pytest.raises(
        PlanMismatchError, match=r"first\.weight is \(16, 3, 3, 3\), expected \(12,"
    ):
        load(saved[1], lambda: code.Net(16))


def test_a_changed_plan_is_found(code: Any, saved: tuple[nn.Module, Path]) -> None:
    path = saved[1] / "plan.json"
    path.write_text(path.read_text().replace('"after": {', '"after":  {'))
    with pytest.raises(StorageError, match=r"plan\.json is changed"):
        load(saved[1], code.model_fn)


def test_a_cut_saved_without_its_plan_says_what_does_not_fit(code: Any, tmp_path: Path) -> None:
    small, _ = planned(code.model_fn(), INPUT)
    save(small, tmp_path / "out")
    with pytest.raises(StorageError, match=r"is \(6,.* in the file, \(12,.* in the model"):
        load(tmp_path / "out", code.model_fn)


@pytest.fixture(scope="module")
def transformers() -> ModuleType:
    pytest.importorskip("transformers")
    sys.path.insert(0, str(Path(__file__).parents[1] / "zoo"))
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    import transformers

    return transformers


def tiny_llama(transformers: ModuleType) -> tuple[Any, dict[str, Any]]:
    config = transformers.LlamaConfig(
        vocab_size=31, hidden_size=24, num_hidden_layers=2, intermediate_size=40,
        num_attention_heads=6, num_key_value_heads=3, head_dim=4,
    )  # fmt: skip
    tokens = torch.tensor([[1, 5, 30, 2]])
    return transformers.LlamaForCausalLM(config).eval(), {"input_ids": tokens, "use_cache": False}


def logits(model: Any, inputs: dict[str, Any]) -> Tensor:
    out: Tensor = model.eval()(**inputs).logits
    return out


@pytest.mark.parametrize("seed", [0, 1])
def test_plan_on_the_expressible_graph_is_read_by_plain_transformers(
    transformers: ModuleType, tmp_path: Path, seed: int
) -> None:
    model, inputs = tiny_llama(transformers)
    graph = expressible(trace(model, inputs), model)
    scores = score(graph, model, criterion="random", seed=seed)
    plan = make_plan(graph, scores, budget="macs=60%", include_structural=True)
    small: Any = cut(model, plan)
    save(small, tmp_path / "out", plan=plan)
    read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(logits(read, inputs), logits(small, inputs), rtol=0, atol=1e-5)
    assert read.num_parameters() < model.num_parameters()
    assert json.loads((tmp_path / "out" / "plan.json").read_text())["before"]["params"] == (
        model.num_parameters()
    )


def test_free_plan_of_a_transformers_model_is_saved_for_secateur(
    transformers: ModuleType, tmp_path: Path
) -> None:
    model, inputs = tiny_llama(transformers)
    graph = trace(model, inputs)
    scores = score(graph, model, criterion="random")
    plan = make_plan(graph, scores, budget="macs=60%", selector="global")
    small: Any = cut(model, plan)
    with pytest.warns(UserWarning, match="cannot express this LlamaForCausalLM"):
        save(small, tmp_path / "out", plan=plan)
    loaded = load(tmp_path / "out", lambda: transformers.LlamaForCausalLM(model.config))
    assert torch.equal(logits(loaded, inputs), logits(small, inputs))
