"""Every example runs, in a copy of its folder, as the reader would run it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
SCRIPTS = [path for path in sorted(EXAMPLES.glob("*.py")) if "__main__" in path.read_text("utf-8")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES, tmp_path / "examples"))


def run(*arguments: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_script(script: Path, folder: Path) -> None:
    assert run(script.name, folder=folder)


def test_the_recipe(folder: Path) -> None:
    run("-m", "secateur.cli", "run", "digits.yaml", folder=folder)
    result = json.loads((folder / "runs/digits/result.json").read_text("utf-8"))
    dense, pruned = result["dense"], result["pruned"]
    assert pruned["params"] <= 0.4 * dense["params"]
    assert pruned["macs"] <= 0.5 * dense["macs"]
    assert pruned["accuracy"] >= dense["accuracy"] - 0.03
    assert dense["accuracy"] > 0.9


def test_the_recipe_of_several_stages(folder: Path) -> None:
    run("-m", "secateur.cli", "run", "hybrid.yaml", "--no-baseline", folder=folder)
    result = json.loads((folder / "runs/hybrid/result.json").read_text("utf-8"))
    dense, pruned = result["dense"], result["pruned"]
    assert pruned["macs"] <= 0.5 * dense["macs"]
    assert 0.45 < pruned["zeros"] / pruned["params"] < 0.5  # biases and the first layer stay
    assert pruned["accuracy"] >= dense["accuracy"] - 0.03
