"""Checkpoints are whole or not there; a damaged one is found out and the one before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from secateur.core.errors import StorageError, TrainError
from secateur.train.checkpoint import latest_checkpoint, save_checkpoint


def save(folder: Path, number: int) -> Path:
    return save_checkpoint(folder, {"n": number, "w": torch.full((4,), number)}, number=number)


def test_round_trip_and_only_the_newest_two_stay(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path / "none") is None
    for number in (1, 2, 10):
        save(tmp_path, number)
    tree = latest_checkpoint(tmp_path)
    assert tree is not None
    assert tree["n"] == 10
    assert tree["w"].tolist() == [10.0] * 4
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["checkpoint-00000002", "checkpoint-00000010"]


@pytest.mark.parametrize("file", ["state.json", "tensors.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, file: str, damage: str
) -> None:
    save(tmp_path, 1)
    path = save(tmp_path, 2) / file
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[:-5])
    elif damage == "changed":
        path.write_bytes(content[:-20] + bytes([content[-20] ^ 1]) + content[-19:])
    with pytest.warns(UserWarning, match=r"checkpoint-00000002 is damaged .*the one before it"):
        tree = latest_checkpoint(tmp_path)
    assert tree is not None
    assert tree["n"] == 1


def test_no_whole_checkpoint_is_an_error(tmp_path: Path) -> None:
    (save(tmp_path, 1) / "state.json").write_text("{}")
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(TrainError, match=r"no checkpoint in .* is whole; remove the folder"),
    ):
        latest_checkpoint(tmp_path)


def test_a_damaged_newer_one_is_replaced_when_the_run_gets_there_again(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (save(tmp_path, 2) / "state.json").write_text("{}")
    save(tmp_path, 2)
    tree = latest_checkpoint(tmp_path)
    assert tree is not None
    assert tree["n"] == 2


def test_full_disk_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(*args: object, **kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("secateur.train.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left on device; nothing was changed"):
        save(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001"]


def test_a_write_that_safetensors_refuses_is_a_storage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError

    def full(*args: object, **kwargs: object) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("secateur.train.checkpoint.save_file", full)
    with pytest.raises(StorageError, match="No space left"):
        save(tmp_path, 1)


def test_killed_before_the_rename_leaves_the_previous_and_is_tidied_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)
    # what SIGKILL leaves: the half-written folder, since no cleanup runs
    leftover = tmp_path / ".checkpoint-00000002.abc"
    leftover.mkdir()
    (leftover / "state.json").write_text("{")
    tree = latest_checkpoint(tmp_path)
    assert tree is not None
    assert tree["n"] == 1
    save(tmp_path, 2)
    assert not leftover.exists()


def test_another_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secateur.train.checkpoint.FORMAT", 99)
    save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(TrainError, match="format 99, this secateur reads format 2"):
        latest_checkpoint(tmp_path)
