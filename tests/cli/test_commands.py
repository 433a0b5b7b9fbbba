"""Commands as a person types them: results on stdout, words on stderr, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import secateur as sc

Type = Callable[..., Any]
ROOT = Path(__file__).parents[2]
PLAN = ("plan", "my_models:cnn", "--budget", "macs=50%")


def test_inspect_lists_groups_and_reasons(secateur: Type) -> None:
    typed = secateur("inspect", "my_models:cnn")
    assert (typed.exit_code, typed.stderr) == (0, "")
    assert "2 free groups" in typed.stdout
    assert "0 channels" in typed.stdout
    assert "an output of the model" in typed.stdout


def test_inspect_as_json_counts_the_cost(secateur: Type) -> None:
    body = secateur("inspect", "my_models:cnn", "--json").json
    # 8*9+8 conv, 2*8 norm, 16*8*9+16 conv, 64*10+10 linear
    assert body["cost"]["params"] == 80 + 16 + 1168 + 650
    assert {group["id"] for group in body["groups"] if group["pinned"] is None} == {
        "0.weight[0]",
        "3.weight[0]",
    }


def test_inspect_all_names_every_pinned_group(secateur: Type) -> None:
    lines = secateur("inspect", "my_models:cnn", "--all").stdout.splitlines()
    assert any("7.weight[0]" in line and "an output of the model" in line for line in lines)
    assert any("3 channels" in line and "3.weight[0]" in line for line in lines)  # name and id


def test_plan_removes_whole_blocks(secateur: Type) -> None:
    typed = secateur("plan", "my_models:residual", "--blocks", "0.5", "--criterion", "l1")
    assert typed.exit_code == 0, typed.stderr
    assert "2 blocks removed as a whole: blocks.{" in typed.stdout
    assert len(sc.Plan.load("plan.json").removed) == 2
    both = secateur("plan", "my_models:residual", "--blocks", "1", "--budget", "macs=50%")
    plan = sc.Plan.load("plan.json")
    assert both.exit_code == 0 and len(plan.removed) == 1 and plan.keep
    assert secateur("apply", "my_models:residual", "plan.json", "--out", "small").exit_code == 0


def test_plan_writes_the_plan_that_it_shows(secateur: Type) -> None:
    typed = secateur(*PLAN, "--json")
    written = sc.Plan.load("plan.json")
    assert typed.exit_code == 0
    assert typed.json["hash"] == written.hash
    assert 0 < written.after.macs <= 0.5 * written.before.macs


def test_plan_dry_run_writes_nothing(secateur: Type, workplace: Path) -> None:
    typed = secateur(*PLAN, "--dry-run")
    assert typed.exit_code == 0
    assert "MACs" in typed.stdout
    assert not (workplace / "plan.json").exists()


def test_the_same_command_gives_the_same_plan(secateur: Type) -> None:
    first, second = (secateur(*PLAN, "--criterion", "random", "--json").stdout for _ in range(2))
    other = secateur(*PLAN, "--criterion", "random", "--seed", "1", "--json").stdout
    assert first == second != other


def test_plan_with_data_and_constraints(secateur: Type) -> None:
    options = ("--criterion", "taylor", "--data", "digits", "--calibration", "64")
    body = secateur(*PLAN, *options, "--multiple-of", "4", "--selector", "global", "--json").json
    assert {len(group["keep"]) % 4 for group in body["groups"].values()} == {0}
    assert body["settings"]["selector"] == "global"
    assert body["settings"]["criterion"] == "taylor"


def test_apply_saves_a_model_that_is_read_again(secateur: Type) -> None:
    secateur(*PLAN)
    typed = secateur("apply", "my_models:cnn", "plan.json", "--out", "small", "--json")
    assert typed.exit_code == 0
    assert typed.json["proof"]["groups_checked"] == 2
    assert typed.json["proof"]["max_abs_error"] < 1e-5
    again = secateur("inspect", "small", "--json").json
    assert again["cost"]["macs"] == sc.Plan.load("plan.json").after.macs


def test_apply_dry_run_shows_what_would_change(secateur: Type, workplace: Path) -> None:
    secateur(*PLAN)
    typed = secateur("apply", "my_models:cnn", "plan.json", "--out", "small", "--dry-run")
    assert typed.exit_code == 0
    assert "0.out_channels: 8 -> " in typed.stdout
    assert not (workplace / "small").exists()


def test_apply_refuses_another_model(secateur: Type, workplace: Path) -> None:
    secateur(*PLAN)
    typed = secateur("apply", "my_models:mlp", "plan.json", "--out", "small")
    assert (typed.exit_code, typed.stdout) == (1, "")
    assert "made for another model" in typed.stderr
    assert not (workplace / "small").exists()


def test_apply_leaves_other_files_alone(secateur: Type, workplace: Path) -> None:
    secateur(*PLAN)
    (workplace / "mine").mkdir()
    (workplace / "mine" / "thesis.tex").write_text("precious")
    typed = secateur("apply", "my_models:cnn", "plan.json", "--out", "mine")
    assert typed.exit_code == 1
    assert [each.name for each in (workplace / "mine").iterdir()] == ["thesis.tex"]


def test_verify_in_float64(secateur: Type) -> None:
    secateur(*PLAN)
    body = secateur("verify", "my_models:cnn", "plan.json", "--json").json
    assert body["dtype"] == "float64"
    assert body["max_abs_error"] < 1e-12
    assert (body["groups_checked"], body["groups_shape_only"]) == (2, 0)


def test_verify_finds_a_saved_model_that_was_changed(secateur: Type, workplace: Path) -> None:
    secateur(*PLAN)
    secateur("apply", "my_models:cnn", "plan.json", "--out", "small")
    same = secateur("verify", "my_models:cnn", "plan.json", "--saved", "small")
    assert same.exit_code == 0
    from my_models import cnn  # type: ignore[import-not-found]

    model = sc.load("small", lambda: cnn()[0])
    with torch.no_grad():
        model[0].weight[0] += 1
    sc.save(model, "changed", plan=sc.Plan.load("plan.json"))
    changed = secateur("verify", "my_models:cnn", "plan.json", "--saved", "changed")
    assert changed.exit_code == 1
    assert "differs from the masked original" in changed.stderr


def test_a_huggingface_model_that_plain_transformers_loads(secateur: Type) -> None:
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()  # transformers imports torchvision where it is installed
    transformers = pytest.importorskip("transformers")
    plan = ("plan", "my_models:bert", "--budget", "macs=60%", "--huggingface")
    assert secateur(*plan).exit_code == 0
    applied = secateur("apply", "my_models:bert", "plan.json", "--out", "small", "--json")
    assert applied.exit_code == 0, applied.stderr
    small = transformers.BertModel.from_pretrained("small")
    after = sc.Plan.load("plan.json").after
    assert sum(p.numel() for p in small.parameters()) == after.params
    assert secateur("inspect", "small", "--json").json["cost"]["params"] == after.params


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("plan", "my_models:cnn", "--budget", "macs=half"), 2, "is not understood"),
        (("plan", "my_models:cnn", "--budget", "macs=0.01%"), 1, "macs"),
        (
            ("plan", "my_models:cnn", "--criterion", "l3", "--keep", "0.5"),
            2,
            "there are: activation_mean, apoz",
        ),
        (("plan", "my_models:cnn", "--criterion", "taylor", "--keep", "0.5"), 1, "needs data"),
        (("plan", "my_models:cnn", "--keep", "1.5"), 2, "in (0, 1]"),
        (("plan", "my_models:spoiled", "--keep", "0.5"), 1, "NaN"),
        (("plan", "my_models:cnm", "--keep", "0.5"), 2, "did you mean 'cnn'"),
        (("plan", "my_models:broken", "--keep", "0.5"), None, "a bug of the user's"),
        (("inspect", "no_such_folder"), 2, "torchvision:NAME"),
        (("apply", "my_models:cnn", "none.json", "--out", "x"), 2, "none.json"),
        (("apply", "my_models:cnn", "my_models.py", "--out", "x"), 1, "not a secateur plan"),
        (("apply", "my_models:cnn", "plan.json"), 2, "--out"),
        ((*PLAN[:1], "my_models:mlp", "--keep", "0.5", "--data", "digits"), 2, "(1, 8, 8)"),
        ((*PLAN, "--data", "digit"), 2, "did you mean 'digits'"),
        ((*PLAN, "--huggingface"), 2, "transformers model"),
        (("report", "."), 1, "is not a secateur result"),
        (("run", "none.yaml"), 2, "none.yaml"),
        (("run",), 2, "'model' is missing"),
        (("inspect", "--no-such-flag"), 2, "no-such-flag"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes(secateur: Type, arguments: tuple[str, ...], code: int | None, said: str) -> None:
    if code is None:
        with pytest.raises(ArithmeticError, match=said):
            secateur(*arguments)
        return
    typed = secateur(*arguments)
    assert (typed.exit_code, typed.stdout) == (code, "")
    assert said in typed.stderr
    assert "Traceback" not in typed.stderr


def test_version(secateur: Type) -> None:
    assert secateur("--version").stdout.strip() == sc.__version__


def test_the_installed_program(workplace: Path) -> None:
    """Another process: streams apart, exit codes, no traceback for a user's mistake."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "secateur.cli", *arguments],
            env={"PYTHONPATH": str(ROOT / "src"), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )

    good = run("inspect", "my_models:mlp", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["cost"]["params"] == 4 * 8 + 8 + 8 * 2 + 2
    bad = run("plan", "my_models:mlp", "--budget", "macs=half")
    assert (bad.returncode, bad.stdout) == (2, "")
    assert bad.stderr.startswith("error: budget 'macs=half' is not understood")
    assert len(bad.stderr.splitlines()) == 1
