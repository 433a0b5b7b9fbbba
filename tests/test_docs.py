"""What the documentation shows is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secateur.cli.app import COMMANDS
from secateur.cli.recipe import read_recipe
from secateur.cli.settings import RunSettings

DOCS = Path(__file__).parents[1] / "docs"
FENCED = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def test_the_recipes_are_valid(tmp_path: Path) -> None:
    found = FENCED.findall((DOCS / "recipes.md").read_text("utf-8"))
    first, *others = [text for text in found if "stages:" not in text]
    path = tmp_path / "recipe.yaml"
    path.write_text(first + "".join(others), encoding="utf-8")
    settings = read_recipe(path, RunSettings, overrides={})
    assert settings.select.multiple_of == 8
    assert settings.recover is not None
    assert settings.loop is not None
    assert settings.loop.max_drop == 0.01


def test_the_recipes_of_several_stages_are_valid(tmp_path: Path) -> None:
    found = FENCED.findall((DOCS / "recipes.md").read_text("utf-8"))
    hybrid, gradual = [text for text in found if "stages:" in text]
    path = tmp_path / "recipe.yaml"
    path.write_text(hybrid, encoding="utf-8")
    stages = read_recipe(path, RunSettings, overrides={}).road
    assert [stage.name for stage in stages] == ["prune", "recover", "mask"]
    path.write_text(gradual, encoding="utf-8")
    stages = read_recipe(path, RunSettings, overrides={}).road
    assert all(stage.settings.gradual is not None for stage in stages)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_command_is_described(command: object) -> None:
    name = command.name  # type: ignore[attr-defined]
    assert f"\nsecateur {name} " in (DOCS / "command_line.md").read_text("utf-8")
