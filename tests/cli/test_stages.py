"""Recipes of several stages: what each leaves, what is saved, and what the report says of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import secateur as sc
from secateur.cli.distil_settings import DistilSettings, LayersSettings
from secateur.cli.recovery import TERMS, terms_of
from secateur.train import AttentionTransfer, Features, Logits

Type = Callable[..., Any]
HEAD = """
model: my_models:cnn
data: digits
out: run
baseline: false
stages:
"""
QUICK = "epochs: 2, steps_per_epoch: 4, lr: 0.05"
HYBRID = f"""
  - prune:
      budget: macs=50%
      criterion: taylor
      calibration: 64
      select: {{multiple_of: 4}}
      reconstruct: true
  - recover: {{{QUICK}, distil: {{teacher: dense, logits: {{temperature: 2}}}}}}
  - mask:
      pattern: 2:4
      recover: {{{QUICK}, ema: 0.5, distil: {{attention_transfer: {{layers: ["4"]}}}}}}
  - recover: {{{QUICK}}}
"""


@pytest.fixture(autouse=True)
def quick_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are not looked at here."""
    monkeypatch.setattr("secateur.cost.latency.ROUND_MS", 0.01)
    monkeypatch.setattr("secateur.cost.latency.SETTLE_MS", 0.0)


@pytest.fixture
def go(secateur: Type, workplace: Path) -> Type:
    """Runs a recipe of stages and gives what it answered."""

    def run(stages: str, *flags: str, head: str = HEAD) -> Any:
        (workplace / "recipe.yaml").write_text(head + stages, encoding="utf-8")
        return secateur("run", "recipe.yaml", "--json", *flags)

    return run


def finished(typed: Any) -> dict[str, Any]:
    assert typed.exit_code == 0, typed.stderr
    return dict(typed.json)


def weights(folder: str) -> dict[str, torch.Tensor]:
    return load_file(Path(folder) / "model.safetensors")


def zeros_of_four(weight: torch.Tensor) -> set[int]:
    """How many zeros there are in each four weights along the inputs."""
    fours = weight.transpose(1, -1).unflatten(-1, (-1, 4))
    return set((fours == 0).sum(-1).flatten().tolist())


def zeros(tensors: dict[str, torch.Tensor]) -> tuple[int, int]:
    """Zeros and entries of all tensors of two or more dimensions."""
    wide = [tensor for tensor in tensors.values() if tensor.ndim > 1]
    return sum(int((t == 0).sum()) for t in wide), sum(t.numel() for t in wide)


def test_structured_then_distilled_then_two_of_four(go: Type, secateur: Type) -> None:
    typed = go(HYBRID)
    body = finished(typed)
    assert 0 < body["pruned"]["macs"] <= 0.5 * body["dense"]["macs"]
    saved = weights("run/model")
    assert saved["0.weight"].shape[0] % 4 == 0
    assert zeros_of_four(saved["3.weight"]) == {2}
    assert zeros_of_four(saved["7.weight"]) == {2}
    assert int((saved["0.weight"] == 0).sum()) == 0, "one input: no fours"
    assert body["pruned"]["zeros"] == zeros(saved)[0]
    assert [row["name"] for row in body["extra"]] == [
        "1-prune",
        "2-recover",
        "3-mask",
    ]
    assert [row["zeros"] for row in body["extra"]] == [0, 0, body["pruned"]["zeros"]]
    assert all(0 < row["accuracy"] <= 1 for row in body["extra"])
    assert "0.weight has 1 inputs" in typed.stderr
    assert any("0.weight has 1 inputs" in said for said in body["warnings"])
    assert any("are zeros" in said for said in body["warnings"])
    assert body["proof"]["max_abs_error"] < 1e-5
    prune, *_, mask, _last = body["settings"]["stages"]
    assert prune["prune"]["select"] == {"multiple_of": 4}, "only what was said"
    assert list(mask["mask"]) == ["pattern", "recover"]
    assert len(body["curves"][0]["loss"]) == 6, "three trainings of two epochs"
    each_stage_can_be_read_alone(secateur, body)


def each_stage_can_be_read_alone(secateur: Type, body: dict[str, Any]) -> None:
    for name in ("stages/1-prune/model", "stages/3-mask/model", "model"):
        cost = secateur("inspect", f"run/{name}", "--json").json["cost"]
        assert cost["macs"] == body["pruned"]["macs"]
    masks = sc.MaskPlan.load("run/stages/3-mask/masks.safetensors")
    assert {layer.name: layer.sparsity for layer in masks.layers} == {
        "3.weight": 0.5,
        "7.weight": 0.5,
    }
    saved = weights("run/model")
    for name, kept in masks.kept.items():
        assert not saved[name][~kept].any(), "recovery left the masks alone"


def test_the_baseline_goes_the_same_road_at_random(go: Type) -> None:
    body = finished(go(HYBRID, head=HEAD.replace("baseline: false\n", "")))
    assert body["random"]["macs"] <= 0.5 * body["dense"]["macs"]
    random = weights("run/random/stages/4-recover/model")
    assert zeros_of_four(random["3.weight"]) == {2}
    said = json.loads(Path("run/random/stages/1-prune/plan.json").read_text("utf-8"))
    assert said["settings"]["criterion"] == "random"
    masks = sc.MaskPlan.load("run/random/stages/3-mask/masks.safetensors")
    assert masks.settings["criterion"] == "random"


@pytest.mark.parametrize(
    "schedule",
    [
        "criterion: taylor_weight, calibration: 64, scope: layer",
        f"gradual: {{interval: 2}}, recover: {{{QUICK}}}",
        f"dynamic: {{interval: 2}}, erdos_renyi: true, recover: {{{QUICK}}}",
        f"dynamic: {{interval: 2, grow: random, decay: constant}}, recover: {{{QUICK}}}",
    ],
)
def test_four_fifths_of_the_weights_go(go: Type, schedule: str) -> None:
    prune = "  - prune: {budget: macs=60%}\n"
    body = finished(go(f"{prune}  - mask: {{sparsity: 0.8, {schedule}}}\n"))
    masks = sc.MaskPlan.load("run/stages/2-mask/masks.safetensors")
    found, entries = zeros(weights("run/model"))
    masked = sum(layer.zeros for layer in masks.layers)
    assert masked == pytest.approx(0.8 * entries, abs=2)
    new = found - masked  # weights that came last start at zero
    assert found == body["pruned"]["zeros"] and (new == 0 or "dynamic" in schedule)


def test_masks_alone_need_no_cut(go: Type) -> None:
    body = finished(go("  - mask: {sparsity: 0.5, recover: {epochs: 1, steps_per_epoch: 2}}\n"))
    assert body["proof"] is None
    assert body["pruned"]["params"] == body["dense"]["params"]
    assert zeros(weights("run/model"))[0] == body["pruned"]["zeros"] > 0
    assert body["pruned"]["accuracy"] is not None


def test_two_cuts_are_one_plan(go: Type) -> None:
    two = "  - prune: {budget: macs=80%}\n  - prune: {budget: params=60%, criterion: l1}\n"
    body = finished(go(two))
    plan = sc.Plan.load("run/plan.json")
    assert plan.after.params == body["pruned"]["params"]
    assert body["proof"]["groups_checked"] == 2
    from my_models import cnn  # type: ignore[import-not-found]

    model, x = cnn()
    small = sc.load("run/model", lambda: cnn()[0])
    assert small(x).shape == sc.cut(model, plan)(x).shape


def test_a_loop_and_its_baseline_within_a_stage(go: Type) -> None:
    stage = f"prune: {{budget: params=60%, loop: {{steps: 2}}, recover: {{{QUICK}}}}}"
    head = HEAD.replace("baseline: false\n", "")
    body = finished(go(f"  - {stage}\n  - mask: {{pattern: 1:4}}\n", head=head))
    assert body["random"]["params"] <= body["pruned"]["params"] <= 0.6 * body["dense"]["params"]
    assert json.loads(Path("run/stages/1-prune/steps.json").read_text("utf-8"))["met"]
    assert not Path("run/random/stages/1-prune/steps.json").exists()


def test_pruning_while_training_by_flags(secateur: Type) -> None:
    flags = ("--model", "my_models:cnn", "--data", "digits", "--budget", "macs=50%")
    training = ("--epochs", "2", "--steps-per-epoch", "6", "--teacher", "dense", "--hard", "0.3")
    gradual = ("--criterion", "running_taylor", "--cuts", "2", "--out", "run")
    body = finished(secateur("run", *flags, *training, *gradual, "--json"))
    assert body["pruned"]["macs"] <= 0.5 * body["dense"]["macs"]
    assert body["random"]["macs"] <= 0.5 * body["dense"]["macs"]
    cuts = [json.loads(line) for line in Path("run/cuts.jsonl").read_text("utf-8").splitlines()]
    assert len(cuts) == 2 and cuts[0]["macs"] > cuts[1]["macs"]
    assert body["proof"]["groups_checked"] == 2
    distil = json.loads(Path("run/run.json").read_text("utf-8"))["settings"]["recover"]["distil"]
    assert (distil["teacher"], distil["hard"]) == ("dense", 0.3)


def test_another_teacher_is_loaded(go: Type, secateur: Type) -> None:
    recover = f"recover: {{{QUICK}, distil: {{teacher: my_models:mlp}}}}"
    wrong = go(f"  - prune: {{budget: macs=50%}}\n  - {recover}\n")
    assert wrong.exit_code == 1
    assert "the teacher Sequential does not take a batch of" in wrong.stderr
    right = recover.replace("mlp", "cnn").replace("my_models:cnn", "run/stages/1-prune/model")
    finished(go(f"  - prune: {{budget: macs=50%}}\n  - {right}\n", "--redo"))


def test_terms_have_the_defaults_of_training() -> None:
    assert terms_of(DistilSettings()) == (Logits(),)
    given = DistilSettings(features=LayersSettings(), attention_transfer=LayersSettings(weight=3.0))
    assert terms_of(given) == (Features(), AttentionTransfer(weight=3.0))
    hints = DistilSettings.__annotations__
    assert set(TERMS) == set(hints) - {"teacher", "weights", "hard"}
