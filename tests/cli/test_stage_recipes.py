"""Recipes of stages that are wrong: told before anything starts, with place and a way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from secateur.cli.recipe import read_recipe
from secateur.cli.settings import RunSettings
from secateur.core.errors import RecipeError

Type = Callable[..., Any]
RECIPE = """
model: my_models:cnn
data: digits
stages:
  - prune:
      budget: macs=50%
      select: {multiple_of: 4}
  - recover:
      epochs: 2
      distil: {teacher: dense}
  - mask: {pattern: 2:4}
"""


def read(tmp_path: Path, text: str, **overrides: Any) -> RunSettings:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, RunSettings, overrides=overrides)


def refusal(tmp_path: Path, text: str, **overrides: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text, **overrides)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_stages_are_read_in_order(tmp_path: Path) -> None:
    settings = read(tmp_path, RECIPE)
    assert [stage.name for stage in settings.road] == ["prune", "recover", "mask"]
    prune, recover, mask = (stage.settings for stage in settings.road)
    assert (prune.budget, prune.select.multiple_of, prune.recover) == ("macs=50%", 4, None)
    assert (recover.epochs, recover.distil.teacher) == (2, "dense")
    assert mask.pattern == "2:4", "not the number 124, which YAML 1.1 reads"


def test_without_stages_a_recipe_is_one_prune_stage(tmp_path: Path) -> None:
    settings = read(tmp_path, "model: m\nbudget: macs=50%\nrecover: {epochs: 3}\n")
    (stage,) = settings.road
    assert stage.prune is not None and stage.prune.recover is not None
    assert (stage.prune.budget, stage.prune.recover.epochs) == ("macs=50%", 3)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("- mask", "- masks", "recipe.yaml:11:5: unknown key 'masks', did you mean 'mask'?"),
        ("budget", "buget", "recipe.yaml:6:7: unknown key 'buget', did you mean 'budget'?"),
        ("multiple_of", "multiples", "recipe.yaml:7:16: unknown key 'multiples', did you mean"),
        (
            "teacher",
            "teachers",
            "recipe.yaml:10:16: unknown key 'teachers', did you mean 'teacher'",
        ),
        ("epochs: 2", "epochs: two", "recipe.yaml:9:7: epochs: input should be a valid integer"),
        ("macs=50%", "macs=half", "recipe.yaml:6:7: budget 'macs=half' is not understood"),
        ("budget: macs=50%", "criterion: l3", "recipe.yaml:6:7: unknown criterion 'l3'; "),
        ("2:4", "4:2", "recipe.yaml:11:12: pattern '4:2': N:M keeps N of every M"),
        ("pattern: 2:4", "sparsity: 1.5", "recipe.yaml:11:12: sparsity is the share of zeros, in"),
        ("pattern: 2:4", "scope: layer", "recipe.yaml:11:5: say how much shall be zero: sparsity:"),
        ("{pattern: 2:4}", "{pattern: 2:4, sparsity: 0.5}", "itself says how much goes, 0.5"),
        (
            "pattern: 2:4",
            "sparsity: 0.5, criterion: apoz",
            "scores whole units, not single weights",
        ),
        ("pattern: 2:4", "sparsity: 0.9, gradual: {}", "add for example `recover: {epochs: 5}`"),
        ("pattern: 2:4", "pattern: 2:4, gradual: {}", "gradual raises one sparsity of the whole"),
        (
            "pattern: 2:4",
            "pattern: 2:4, dynamic: {}",
            "dynamic moves single weights; leave pattern",
        ),
        ("2:4}", "2:4}\n  - prune: {budget: macs=40%}", "list prune before mask"),
        ("2:4}", "2:4}\n  - recover:", "recipe.yaml:12:5: a stage is one of prune, mask and recov"),
        (
            "  - mask: {",
            "    mask: {",
            "recipe.yaml:11:5: a stage is one of prune, mask and recover, not mask and r",
        ),
        ("- mask: {pattern: 2:4}", "- fold", "recipe.yaml:11:5: 'fold' is no section; write a nam"),
        ("data: digits\n", "", "recipe.yaml:3:1: stages: one of them trains and there is no data"),
        ("data:", "budget: macs=9%\ndata:", "recipe.yaml:3:1: budget stands beside stages"),
        ("data:", "loop: {steps: 2}\ndata:", "recipe.yaml:3:1: loop stands beside stages"),
        ("select: {multiple_of: 4}", "gradual: {}", "gradual prunes while training; add `recover:"),
        ("select:", "loop: {}\n      reconstruct: true\n      select:", "leave it out beside loop"),
        (
            "macs=50%",
            "macs=50%\n      criterion: running_taylor",
            "add for example `gradual: {cuts",
        ),
        ("dense}", "dense, weights: default}", "weights are of another teacher than dense"),
        ("dense}", "dense, logits: {temperature: 0}}", "temperature must be positive, not 0"),
        (
            "dense}",
            "dense, attention_maps: {layers: 3}}",
            "recipe.yaml:10:49: layers: input should",
        ),
    ],
)
def test_mistakes_are_told_with_their_place(old: str, new: str, said: str, tmp_path: Path) -> None:
    assert old in RECIPE
    assert said in refusal(tmp_path, RECIPE.replace(old, new, 1))


def test_an_empty_list_of_stages(tmp_path: Path) -> None:
    assert "stages is empty; list at least one" in refusal(tmp_path, "model: m\nstages: []\n")


def test_a_flag_of_one_stage_does_not_fit_several(tmp_path: Path) -> None:
    said = refusal(tmp_path, RECIPE, recover={"distil": {"teacher": "dense"}})
    assert said.startswith("--teacher: recover stands beside stages")


def test_what_needs_data_says_so(tmp_path: Path) -> None:
    text = "model: m\nbudget: macs=50%\nreconstruct: true\n"
    assert refusal(tmp_path, text).startswith("recipe.yaml:3:1: reconstruct needs data; write")


def test_a_model_that_does_not_fit_the_recipe(secateur: Type, workplace: Path) -> None:
    (workplace / "r.yaml").write_text(
        "model: my_models:mlp\nout: run\nbaseline: false\nstages:\n"
        "  - mask: {sparsity: 0.5, skip: [head]}\n",
        encoding="utf-8",
    )
    typed = secateur("run", "r.yaml")
    assert (typed.exit_code, typed.stdout) == (2, "")
    assert "skip names 'head', which is none of 0.weight" in typed.stderr


def test_a_dry_run_shows_the_first_stage_only_if_it_cuts(secateur: Type, workplace: Path) -> None:
    (workplace / "r.yaml").write_text(
        "model: my_models:cnn\nstages:\n  - mask: {pattern: 2:4}\n", encoding="utf-8"
    )
    typed = secateur("run", "r.yaml", "--dry-run")
    assert typed.exit_code == 2
    assert "list a prune stage first" in typed.stderr
    flags = ("--data", "digits", "--budget", "macs=50%", "--cuts", "2")
    gradual = secateur("run", "--model", "my_models:cnn", *flags, "--dry-run")
    assert gradual.exit_code == 2
    assert "with gradual there is none before the training" in gradual.stderr
