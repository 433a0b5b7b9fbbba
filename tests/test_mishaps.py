"""What goes wrong for users: each mishap has its clear error or is survived; nothing is lost."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import secateur as sc
from secateur.storage import folder as storage_folder


class Literal(nn.Module):
    """The forward holds the width of the flattened features as a number."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 5)
        self.second = nn.Conv2d(6, 16, 5)
        self.hidden = nn.Linear(400, 84)
        self.head = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(self.first(x).relu(), 2)
        x = torch.max_pool2d(self.second(x).relu(), 2)
        x = x.view(-1, 400)
        return self.head(self.hidden(x).relu())


def test_a_literal_size_pins_its_group_and_names_the_line() -> None:
    model, inputs = Literal().eval(), torch.randn(2, 1, 32, 32)
    result = sc.prune(model, inputs, budget="macs=50%")
    pinned = result.graph.group("second.weight[0]").pinned
    assert pinned is not None
    assert "literal size" in pinned and "test_mishaps.py:" in pinned
    line = Path(__file__).read_text().splitlines()[int(pinned.rpartition(":")[2].rstrip(")")) - 1]
    assert "x.view(-1, 400)" in line
    assert result.model.first.out_channels < 6 and result.model.hidden.out_features < 84
    assert result.model.second.out_channels == 16
    assert result.proof is not None and result.proof.max_rel_error < 1e-5
    assert result.model(inputs).shape == (2, 10)


@pytest.fixture
def mystery() -> Any:
    library = torch.library.Library("mystery", "DEF")
    library.define("swirl(Tensor x) -> Tensor")
    library.impl("swirl", lambda x: x.flip(0).sin(), "CompositeExplicitAutograd")
    yield torch.ops.mystery.swirl
    library._destroy()


def test_an_unknown_operator_pins_and_is_named(mystery: Any) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 8), nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(mystery(self.a(x))).relu())

    model, inputs = Model().eval(), torch.randn(2, 4)
    graph = sc.trace(model, inputs)
    assert graph.unknown_ops == {"mystery.swirl.default": 1}
    assert "mystery.swirl.default" in (graph.group("a.weight[0]").pinned or "")
    assert [group.id for group in graph.free] == ["b.weight[0]"]
    with pytest.raises(sc.UnsupportedOpError, match=r"mystery\.swirl.*no rule.*without strict"):
        sc.trace(model, inputs, strict=True)


def test_a_plan_for_another_model_is_refused() -> None:
    inputs = torch.randn(1, 4)
    one = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    other = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))
    plan = sc.prune(one, inputs, budget="params=60%").plan
    with pytest.raises(sc.PlanMismatchError, match=r"0\.weight: the plan says \(8, 4\), the model"):
        sc.cut(other, plan)
    small = sc.cut(one, plan)
    with pytest.raises(sc.PlanMismatchError, match="already cut is another model"):
        sc.cut(small, plan)


def test_an_impossible_budget_says_what_is_possible() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(sc.BudgetError, match=r"macs=1%.*cannot"):
        sc.prune(model, torch.randn(1, 4), budget="macs=1%", min_units=4)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_named(value: float) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].weight[0, 3] = value
    with pytest.raises(sc.ScoreError, match=r"2\.weight"):
        sc.prune(model, torch.randn(1, 4), budget="macs=50%")


def test_inputs_that_the_model_does_not_take() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    before = dict(model[0].__dict__)
    with pytest.raises(sc.TraceError, match="example_inputs"):
        sc.trace(model, torch.randn(1, 5))
    assert model[0].__dict__.keys() == before.keys()
    assert not model[0].weight.is_meta


def pruned() -> tuple[nn.Module, sc.Plan]:
    torch.manual_seed(0)
    dense = dense_model()
    result = sc.prune(dense, torch.randn(1, 4), budget="params=60%")
    return result.model, result.plan


def dense_model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_truncated_and_a_tampered_folder_are_refused(tmp_path: Path) -> None:
    model, plan = pruned()
    sc.save(model, tmp_path / "out", plan=plan)
    weights = tmp_path / "out" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    with pytest.raises(sc.StorageError, match=r"model\.safetensors"):
        sc.load(tmp_path / "out", dense_model)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(sc.StorageError, match=r"model\.safetensors"):
        sc.load(tmp_path / "out", dense_model)
    weights.write_bytes(whole)
    x = torch.randn(3, 4)
    torch.testing.assert_close(sc.load(tmp_path / "out", dense_model)(x), model(x), rtol=0, atol=0)


def test_a_full_disk_keeps_the_older_save(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, plan = pruned()
    sc.save(model, tmp_path / "out", plan=plan)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage_folder, "write_tensors", full)
    with torch.no_grad():
        model[0].weight.zero_()
    with pytest.raises(sc.StorageError, match="No space left"):
        sc.save(model, tmp_path / "out", plan=plan)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
