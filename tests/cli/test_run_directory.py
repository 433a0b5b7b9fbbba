"""A run directory belongs to one run, and a finished stage is not done again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def staged(*stages: dict[str, object], seed: int = 0, threads: int | None = None) -> dict[str, Any]:
    return {"seed": seed, "threads": threads, "stages": list(stages)}


PRUNE, TRAIN = {"prune": {"budget": "macs=50%"}}, {"recover": {"epochs": 3}}
TWO_OF_FOUR = {"mask": {"pattern": "2:4", "skip": ("fc",)}}


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The directory of a run of three stages, and of its baseline."""
    directory = open_run(tmp_path / "run", staged(PRUNE, TRAIN, TWO_OF_FOUR))
    for base in (directory, directory.random):
        for number, name in enumerate(("prune", "recover", "mask"), 1):
            base.stage(number, name, of=3).model.mkdir(parents=True)
    directory.model.mkdir()
    directory.result.write_text("{}")
    return directory.path


def left(path: Path) -> list[str]:
    return sorted(str(each.parent.relative_to(path)) for each in path.rglob("model"))


@pytest.mark.parametrize(
    ("settings", "said", "kept"),
    [
        (
            staged(PRUNE, TRAIN, {"mask": {"pattern": "1:4", "skip": ["fc"]}}),
            "stages.3.mask.pattern was '2:4' and is now '1:4'. The same command with --redo keeps "
            "stage 1 (prune) and stage 2 (recover) and does stage 3 (mask) again; or choose "
            "another --out",
            2,
        ),
        (
            staged(PRUNE, {"recover": {"epochs": 5}}, TWO_OF_FOUR),
            "--redo keeps stage 1 (prune) and does stage 2 (recover) and stage 3 (mask) again",
            1,
        ),
        (staged(PRUNE, TRAIN), "keeps stage 1 (prune) and stage 2 (recover) and does the meas", 2),
        (staged(PRUNE, TRAIN, TWO_OF_FOUR, TRAIN), "and does stage 4 (recover) again", 3),
        (staged(PRUNE, TRAIN, TWO_OF_FOUR, threads=2), "and does the measurement again", 3),
        (staged(PRUNE, TRAIN, TWO_OF_FOUR, seed=1), "--redo does stage 1 (prune) and stage 2", 0),
    ],
    ids=["mask", "recover", "one less", "one more", "threads", "seed"],
)
def test_a_changed_stage_and_what_follows_it_are_done_again(
    finished: Path, settings: dict[str, Any], said: str, kept: int
) -> None:
    before = left(finished)
    with pytest.raises(StorageError) as caught:
        open_run(finished, settings)
    assert said in str(caught.value)
    assert left(finished) == before
    names = ("1-prune", "2-recover", "3-mask")[:kept]
    for _ in range(2):  # the second time the settings are those of the run
        directory = open_run(finished, settings, redo=True)
        stages = [f"{base}stages/{name}" for base in ("", "random/") for name in names]
        assert left(finished) == sorted(stages)
        assert not directory.result.exists()


def test_the_same_stages_as_yaml_and_json_give_them_are_the_same(finished: Path) -> None:
    assert open_run(finished, staged(PRUNE, TRAIN, {"mask": {"pattern": "2:4", "skip": ["fc"]}}))


def test_a_run_of_one_stage_is_done_again_as_a_whole(tmp_path: Path) -> None:
    directory = open_run(tmp_path / "run", SETTINGS)
    directory.plan.write_text("{}")
    directory.checkpoints.mkdir()
    other = {"model": "m", "prune": {"budget": "macs=40%", "keep": ("head",)}}
    with pytest.raises(StorageError, match=r"with --redo does stage 1 \(prune\) again"):
        open_run(tmp_path / "run", other)
    open_run(tmp_path / "run", other, redo=True)
    assert [path.name for path in directory.path.iterdir()] == ["run.json"]


def test_how_often_checkpoints_are_written_may_change(tmp_path: Path) -> None:
    directory = open_run(tmp_path / "run", {"recover": {"epochs": 3, "checkpoint_every": None}})
    directory.checkpoints.mkdir()
    assert open_run(directory.path, {"recover": {"epochs": 3, "checkpoint_every": 10}})
    with pytest.raises(StorageError, match=r"recover\.epochs was 3 and is now 4"):
        open_run(directory.path, {"recover": {"epochs": 4}})
