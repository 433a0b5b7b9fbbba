"""A run directory belongs to one run, and a finished stage is not done again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.cli.run_directory import once, open_run, read_scores, write_scores
from secateur.core.errors import StorageError

SETTINGS = {"model": "m", "prune": {"budget": "macs=50%", "keep": ("head",)}}


def test_the_same_settings_open_the_same_run(tmp_path: Path) -> None:
    first = open_run(tmp_path / "run", SETTINGS)
    assert open_run(tmp_path / "run", SETTINGS) == first
    assert first.settings.is_file()


def test_other_settings_are_refused_and_named(tmp_path: Path) -> None:
    open_run(tmp_path / "run", SETTINGS).plan.write_text("{}")
    other = {"model": "m", "prune": {"budget": "macs=40%", "keep": ("head",)}}
    with pytest.raises(StorageError, match=r"prune.budget was 'macs=50%' and is now 'macs=40%'"):
        open_run(tmp_path / "run", other)


def test_before_there_is_a_plan_the_settings_may_change(tmp_path: Path) -> None:
    open_run(tmp_path / "run", SETTINGS).scores.write_text("by another criterion")
    directory = open_run(tmp_path / "run", {"model": "other"})
    assert not directory.scores.exists()
    directory.plan.write_text("{}")
    assert open_run(tmp_path / "run", {"model": "other"}) == directory


@pytest.mark.parametrize("spoil", ["{", "[]", "{}"])
def test_an_unreadable_run_is_refused(tmp_path: Path, spoil: str) -> None:
    directory = open_run(tmp_path / "run", SETTINGS)
    directory.plan.write_text("{}")
    directory.settings.write_text(spoil)
    with pytest.raises(StorageError, match="is not readable"):
        open_run(tmp_path / "run", SETTINGS)


def test_somebody_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(StorageError, match="not a run of secateur"):
        open_run(tmp_path, SETTINGS)
    assert [each.name for each in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_finished_stage_is_read(tmp_path: Path) -> None:
    path, made = tmp_path / "stage.txt", []

    def make() -> str:
        made.append(1)
        return "value"

    values = [
        once(path, make=make, write=path.write_text, read=path.read_text)  # type: ignore[arg-type]
        for _ in range(2)
    ]
    assert values == ["value", "value"]
    assert made == [1]


def test_a_stage_that_fails_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "stage.txt"

    def make() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(path, make=make, write=path.write_text, read=path.read_text)  # type: ignore[arg-type]
    assert not path.exists()


def test_scores_come_back_as_they_were(tmp_path: Path) -> None:
    scores = {"conv1": torch.tensor([0.5, 2.0], dtype=torch.float64), "a.b": torch.ones(3)[::2]}
    write_scores(tmp_path / "scores.safetensors", scores)
    back = read_scores(tmp_path / "scores.safetensors")
    assert back.keys() == scores.keys()
    for id, values in scores.items():
        torch.testing.assert_close(back[id], values, rtol=0, atol=0)
