"""Recipes: every mistake is told with line, column and what to type instead."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.cli.recipe import read_recipe
from secateur.cli.settings import RunSettings
from secateur.core.errors import RecipeError


@dataclass(frozen=True)
class Recovery:
    epochs: int = 3
    lr: float = 0.1
    schedule: Literal["cosine", "linear"] = "cosine"

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"lr must be positive, not {self.lr}")


@dataclass(frozen=True)
class Settings:
    model: str
    budget: str | None = None
    keep: tuple[str, ...] = ()
    recover: Recovery = field(default_factory=Recovery)


def read(tmp_path: Path, text: str, **overrides: Any) -> Settings:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return read_recipe(path, Settings, overrides=overrides)


def refusal(tmp_path: Path, text: str, **overrides: Any) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text, **overrides)
    return str(caught.value).replace(f"{tmp_path}/", "").splitlines()


def test_a_recipe_is_read(tmp_path: Path) -> None:
    text = "model: m\nkeep: [head, stem]\nrecover:\n  epochs: 5\n  lr: 1e-3\n"
    settings = read(tmp_path, text)
    assert settings == Settings("m", keep=("head", "stem"), recover=Recovery(5, 0.001))


def test_flags_win_over_the_recipe(tmp_path: Path) -> None:
    text = "model: m\nbudget: macs=50%\nrecover:\n  epochs: 5\n"
    settings = read(tmp_path, text, budget="macs=30%", recover={"lr": 0.5})
    assert settings == Settings("m", "macs=30%", recover=Recovery(5, 0.5))


def test_an_empty_section_means_its_defaults_under_a_flag(tmp_path: Path) -> None:
    assert read(tmp_path, "model: m\nrecover:\n", recover={"epochs": 9}).recover.epochs == 9


def test_misspelt_key(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\n# a comment\n\nbuget: macs=50%\n")
    assert lines == ["recipe.yaml:4:1: unknown key 'buget', did you mean 'budget'?"]


def test_misspelt_key_in_a_section(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\nrecover:\n  lr: 0.1\n  epoch: 3\n")
    assert lines == ["recipe.yaml:4:3: unknown key 'epoch', did you mean 'epochs'?"]


def test_a_key_like_none_of_ours_lists_what_there_is(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\nrecover:\n  zzz: 3\n")
    assert lines == ["recipe.yaml:3:3: unknown key 'zzz', known here are: epochs, lr, schedule"]


def test_wrong_values_are_told_all_at_once(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\nkeep: head\nrecover:\n  epochs: many\n  schedule: up\n")
    assert len(lines) == 3
    assert lines[0].startswith("recipe.yaml:2:1: keep: input should be a valid tuple")
    assert lines[1].startswith("recipe.yaml:4:3: epochs: input should be a valid integer")
    assert lines[2] == "recipe.yaml:5:3: schedule: input should be 'cosine' or 'linear', not 'up'"


def test_a_check_of_the_whole_section_points_at_its_key(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\nrecover:\n  epochs: 4\n  lr: -1\n")
    assert lines == ["recipe.yaml:4:3: lr must be positive, not -1.0"]


def test_a_missing_key(tmp_path: Path) -> None:
    assert refusal(tmp_path, "budget: macs=50%\n")[0].startswith(
        "recipe.yaml:1:1: 'model' is missing; write `model: ...`"
    )


def test_a_wrong_flag_is_named_as_a_flag(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\n", recover={"schedule": "up"})
    assert lines == ["--schedule: schedule: input should be 'cosine' or 'linear', not 'up'"]


def test_a_key_said_twice(tmp_path: Path) -> None:
    lines = refusal(tmp_path, "model: m\nbudget: macs=50%\nbudget: macs=40%\n")
    assert lines == ["recipe.yaml:3:1: 'budget' is said twice, first in line 2"]


def test_not_yaml(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, "model: m\nkeep: [head\nbudget: x\n")
    assert line.startswith("recipe.yaml:3:7: this is not valid YAML: expected ',' or ']'")


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words\n", "3\n"])
def test_not_a_mapping(tmp_path: Path, text: str) -> None:
    assert refusal(tmp_path, text) == ["recipe.yaml:1:1: a recipe is a list of `key: value` lines"]


def test_python_objects_in_yaml_are_refused(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, "model: !!python/object/apply:os.getcwd []\n")
    assert "recipe.yaml:1:8: this is not valid YAML: could not determine a constructor" in line


def test_a_loop_of_aliases_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, "&a {model: *a}\n") == ["recipe.yaml:1:1: this is nested too deeply"]


def test_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes("model: Schere-für-alles".encode("latin-1"))
    with pytest.raises(RecipeError, match="not a text file in UTF-8"):
        read_recipe(path, Settings, overrides={})


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "r.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            settings = read_recipe(path, Settings, overrides={})
        except RecipeError as error:
            assert str(error).startswith(str(path))
        else:
            assert settings.model


def test_shares_of_single_groups_are_a_mapping(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("model: m\nselect:\n  keep:\n    layer4.*: 0.5\n    fc: 1\n", encoding="utf-8")
    assert read_recipe(path, RunSettings, overrides={}).select.keep == {"layer4.*": 0.5, "fc": 1}
    overrides = {"select": {"keep": 0.25}}
    assert read_recipe(path, RunSettings, overrides=overrides).select.keep == 0.25
    path.write_text("model: m\nselect:\n  keep:\n    layer4.*: 5\n", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"recipe\.yaml:\d:\d: keep\['layer4\.\*'\]=5: the share"):
        read_recipe(path, RunSettings, overrides={})
