"""The Python of docs/auto.md runs, from top to bottom, and its command has the flags it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from secateur.cli.auto_settings import AutoRunSettings
from secateur.cli.flags import flags_of
from secateur.cli.recipe import read_recipe

PAGE = Path(__file__).parents[2] / "docs" / "auto.md"


@pytest.mark.slow
def test_the_pages_examples_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    monkeypatch.setenv("SECATEUR_CACHE", str(tmp_path))
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 2
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["result"].shares["macs"] <= 0.3  # type: ignore[attr-defined]
    assert names["can"].lines()  # type: ignore[attr-defined]


def test_the_recipe_of_the_page_is_valid(tmp_path: Path) -> None:
    (recipe,) = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe, encoding="utf-8")
    settings = read_recipe(path, AutoRunSettings, overrides={"seed": 3})
    assert settings.limits["max_drop"] == 0.005 and settings.served.batch_size == 16
    assert settings.select.keep_modules == ("head",) and settings.seed == 3


def test_the_flags_that_the_page_names_are_there() -> None:
    known = {flag.option for flag in flags_of(AutoRunSettings)}
    shown = set(re.findall(r"--[a-z][a-z-]+", PAGE.read_text("utf-8"))) - {"--budget"}
    assert shown and shown <= known
