"""A run of several stages that is killed, over and over, ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

HERE = Path(__file__).parent
TRAIN = "epochs: 2, steps_per_epoch: 4, lr: 0.05"
RECIPE = f"""
model: my_models:cnn
data: digits
baseline: false
stages:
  - prune:
      budget: macs=50%
      criterion: taylor
      calibration: 256
      select: {{multiple_of: 4}}
      reconstruct: true
  - recover: {{{TRAIN}, checkpoint_every: 3, distil: {{features: {{layers: {{"4": "4"}}}}}}}}
  - mask: {{sparsity: 0.8, gradual: {{interval: 2}}, recover: {{{TRAIN}, checkpoint_every: 3}}}}
  - mask: {{pattern: 2:4, recover: {{{TRAIN}}}}}
"""
WHILE_TRAINING = f"""
model: my_models:cnn
data: digits
baseline: false
stages:
  - prune:
      budget: macs=50%
      criterion: running_taylor
      gradual: {{cuts: 2}}
      recover: {{{TRAIN}, checkpoint_every: 2}}
  - mask:
      sparsity: 0.8
      dynamic: {{interval: 2}}
      recover: {{{TRAIN}, checkpoint_every: 2}}
"""


def run(recipe: str, every: int, folder: Path) -> list[dict[str, object]]:
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(HERE / "killed_runs.py"), "recipe.yaml", str(every)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(HERE.parents[1] / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs: list[dict[str, object]] = json.loads(done.stdout.splitlines()[-1])
    assert runs[-1]["code"] == 0, done.stderr
    return runs


def assert_same_run(one: Path, other: Path) -> None:
    """Every stage's weights and masks, and the whole's."""
    files = [path for path in one.rglob("*.safetensors") if "checkpoints" not in path.parts]
    assert {"model.safetensors", "masks.safetensors"} <= {path.name for path in files}
    for path in files:
        ours, theirs = load_file(path), load_file(other / path.relative_to(one))
        assert ours.keys() == theirs.keys()
        for name, tensor in ours.items():
            assert tensor.equal(theirs[name]), f"{path.relative_to(one)}: {name}"


@pytest.mark.parametrize(
    ("recipe", "every", "least"),
    [
        pytest.param(RECIPE, 5, 6, id="hybrid"),
        pytest.param(RECIPE, 4, 10, id="hybrid, often", marks=pytest.mark.slow),
        pytest.param(WHILE_TRAINING, 4, 4, id="while training", marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_in_every_stage_ends_with_the_same_bits(
    recipe: str, every: int, least: int, workplace: Path
) -> None:
    killed = run(recipe, every, workplace)
    assert len(killed) > least, "it was killed that often"
    unfinished = {len(each["stages"]) for each in killed}  # type: ignore[arg-type]
    assert unfinished >= set(range(recipe.count("\n  - "))), "in the middle of every stage"
    assert_same_run(workplace / "undisturbed", workplace / "killed")
