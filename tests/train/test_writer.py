"""A checkpoint that is written beside the training holds what one written at once would hold, never
half of it, and what goes wrong in the thread is heard of in the main one."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.core.errors import StorageError
from secateur.core.world import ALONE
from secateur.train import Callbacks, FinetuneSettings, TensorBatches, finetune
from secateur.train import checkpoint as checkpoints
from secateur.train.staging import Staging
from secateur.train.writer import Writer

SETTINGS = FinetuneSettings(epochs=1, lr=0.05, optimizer="adamw", checkpoint_every=3)  # of 8 steps
LONGEST_S = 30.0


class Killed(BaseException):
    """Stands for the end of the process."""


def train(
    model: nn.Module, digits: Any, folder: Path, on_step: Any = None, **changes: Any
) -> list[float]:
    """The losses of the epochs."""
    data = TensorBatches(digits.train_x[:128], digits.train_y[:128], batch_size=16)
    log = finetune(
        model,
        data,
        settings=replace(SETTINGS, **changes),
        loss_fn=nn.CrossEntropyLoss(),
        checkpoint_dir=folder,
        callbacks=Callbacks(on_step=on_step),
    )
    return [row.loss for row in log.rows]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "checkpoint" in path.name)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, list[str]]:
    """The disk: every write waits for the event, and what happens is noted."""
    write, free, happened = checkpoints.save_file, threading.Event(), list[str]()

    def save_file(*args: Any) -> None:
        happened.append("begins")
        assert free.wait(LONGEST_S)
        write(*args)
        happened.append("ends")

    monkeypatch.setattr(checkpoints, "save_file", save_file)
    return free, happened


def test_a_training_goes_on_while_a_checkpoint_is_written(
    make_model: Any, digits: Any, tmp_path: Path, slow: tuple[threading.Event, list[str]]
) -> None:
    free, happened = slow

    def on_step(step: int, loss: float) -> None:
        happened.append(f"step {step}")
        if step == 5:
            free.set()

    train(make_model(), digits, tmp_path, on_step)
    assert happened.index("ends") > happened.index("step 5")
    assert [word for word in happened if "step" not in word] == ["begins", "ends"] * 3
    assert names(tmp_path) == ["checkpoint-00000002", "checkpoint-00000003"]


def test_it_holds_the_weights_of_its_step_and_not_of_later_ones(
    make_model: Any, digits: Any, tmp_path: Path, slow: tuple[threading.Event, list[str]]
) -> None:
    free, _ = slow

    def on_step(step: int, loss: float) -> None:
        if step == 5:
            free.set()
            raise Killed

    beside, at_once = make_model(), make_model()
    with pytest.raises(Killed):
        train(beside, digits, tmp_path / "beside", on_step)
    with pytest.raises(Killed):
        train(at_once, digits, tmp_path / "at once", on_step, async_checkpoints=False)
    ours, theirs = (
        checkpoints.load_file(tmp_path / name / "checkpoint-00000001" / "tensors.safetensors")
        for name in ("beside", "at once")
    )
    assert ours.keys() == theirs.keys()
    differ = [name for name, tensor in ours.items() if not torch.equal(tensor, theirs[name])]
    assert [name for name in differ if "python" not in name] == [], "checks draw by Python's random"
    assert not torch.equal(ours["model/0.weight"], beside[0].weight), "it went on"


def test_the_numbers_are_those_of_checkpoints_at_once(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    beside, at_once = make_model(), make_model()
    ours = train(beside, digits, tmp_path / "a", epochs=2)
    assert ours == train(at_once, digits, tmp_path / "b", epochs=2, async_checkpoints=False)
    for one, other in zip(beside.state_dict().values(), at_once.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    # and one goes on where the other stopped
    assert train(make_model(), digits, tmp_path / "a", epochs=2, async_checkpoints=False) == ours


@pytest.mark.parametrize(("failing", "left"), [(2, 1), (3, 2)])
def test_a_full_disk_is_told_by_the_training(
    make_model: Any,
    digits: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    failing: int,
    left: int,
) -> None:
    """In the middle of it by one of the next steps, and at its end."""
    write, count, tried = checkpoints.save_file, iter(range(1, 9)), threading.Event()
    steps: list[int] = []

    def save_file(*args: Any) -> None:
        if next(count) == failing:
            tried.set()
            raise OSError(28, "No space left on device")
        write(*args)

    def on_step(step: int, loss: float) -> None:
        steps.append(step)
        if step == 6 and failing == 2:
            assert tried.wait(LONGEST_S)

    monkeypatch.setattr(checkpoints, "save_file", save_file)
    with pytest.raises(StorageError, match="No space left on device; nothing was changed"):
        train(make_model(), digits, tmp_path, on_step)
    assert steps[-1] in ((6, 7, 8) if failing == 2 else (8,))
    assert names(tmp_path) == [f"checkpoint-{number:08d}" for number in range(1, left + 1)]
    monkeypatch.undo()
    undisturbed = train(make_model(), digits, tmp_path / "undisturbed")
    assert train(make_model(), digits, tmp_path) == undisturbed


def test_ctrl_c_lets_the_write_under_way_end(
    make_model: Any, digits: Any, tmp_path: Path, slow: tuple[threading.Event, list[str]]
) -> None:
    free, happened = slow

    def on_step(step: int, loss: float) -> None:
        if step == 4:
            threading.Timer(0.05, free.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(make_model(), digits, tmp_path, on_step)
    assert happened == ["begins", "ends"]
    assert names(tmp_path) == ["checkpoint-00000001"]
    assert checkpoints.latest_checkpoint(tmp_path)["position"]["step"] == 3


def test_of_a_write_that_fails_when_the_training_is_interrupted_a_note_remains(
    make_model: Any, digits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save_file(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    def on_step(step: int, loss: float) -> None:
        if step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "save_file", save_file)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(make_model(), digits, tmp_path, on_step)
    assert any("is not there: could not write" in note for note in caught.value.__notes__)
    assert names(tmp_path) == []


class Noted:
    """A write that notes what is done of it, when it may."""

    def __init__(self, name: str, happened: list[str], free: threading.Event) -> None:
        self.name, self.happened, self.free = name, happened, free

    def write(self) -> None:
        assert self.free.wait(LONGEST_S)
        self.happened.append(f"{self.name} written")

    def publish(self) -> None:
        self.happened.append(f"{self.name} there")

    def is_whole(self) -> bool:
        return True

    def drop(self) -> None:
        self.happened.append(f"{self.name} dropped")


def test_one_write_at_a_time() -> None:
    happened: list[str] = []
    later, now = threading.Event(), threading.Event()
    now.set()
    writer = Writer(ALONE, beside=True)
    writer.begin_(Noted("first", happened, later))
    writer.look_()
    assert happened == [], "nobody waits for it"
    threading.Timer(0.05, later.set).start()
    writer.begin_(Noted("second", happened, now))
    assert happened[:2] == ["first written", "first there"]
    writer.finish_()
    assert happened[2:] == ["second written", "second there"]


def test_buffers_are_used_again_and_what_is_lent_is_not_copied() -> None:
    staging, lent = Staging(), torch.ones(3)
    weight = torch.arange(6.0).reshape(2, 3).T  # not contiguous
    first = staging.hold({"w": weight, "best/w": lent, "best/view": lent[:2]}, lent=("best/",))
    assert first["w"].is_contiguous() and torch.equal(first["w"], weight)
    assert first["best/w"].data_ptr() == lent.data_ptr()
    assert first["best/view"].data_ptr() != lent.data_ptr(), "it shares memory with another"
    again = staging.hold({"w": weight + 1, "best/w": lent}, lent=("best/",))
    assert again["w"].data_ptr() == first["w"].data_ptr()
    smaller = staging.hold({"w": weight[:2]})
    assert torch.equal(smaller["w"], weight[:2])
