"""A run that was killed and run again ends with the bits of one that never was."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secateur.core.errors import TrainError
from secateur.train import Callbacks, FinetuneSettings, TensorBatches, TrainLog, accuracy, finetune

LOSS = nn.CrossEntropyLoss()
# 128 samples in batches of 16, two a step: 8 batches, 4 steps an epoch
SETTINGS = FinetuneSettings(
    epochs=4, lr=0.05, optimizer="adamw", warmup=0.1, accumulate=2, checkpoint_every=3
)


class Killed(BaseException):
    """Stands for the end of the process: nothing in the library may catch it."""


def killing(at: int, error: type[BaseException] = Killed) -> Callbacks:
    def on_step(step: int, loss: float) -> None:
        if step == at:
            raise error

    return Callbacks(on_step=on_step)


def train(
    model: nn.Module, digits: Any, *, folder: Path | None, loader: bool = False, **others: Any
) -> TrainLog:
    x, y = digits.train_x[:128], digits.train_y[:128]
    data: Any = TensorBatches(x, y, batch_size=16, seed=2)
    if loader:  # its order and its noise come from the global generator
        data = DataLoader(
            Noisy(x, y), batch_size=16, shuffle=True, generator=others.pop("generator", None)
        )
    others = {"settings": SETTINGS, "loss_fn": LOSS, **others}
    validate = lambda m: accuracy(m, [(digits.test_x, digits.test_y)])  # noqa: E731
    return finetune(model, data, validate=validate, checkpoint_dir=folder, **others)


class Noisy(TensorDataset):
    """Augmentation in the data set: random numbers are drawn while reading."""

    def __getitem__(self, index: int) -> tuple[torch.Tensor, ...]:
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.randn_like(x), y


def assert_bit_equal(a: nn.Module, b: nn.Module) -> None:
    theirs = b.state_dict()
    for name, value in a.state_dict().items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.parametrize("loader", [False, True])
@pytest.mark.parametrize("at", [1, 4, 6, 7, 8, 16])
def test_killed_anywhere_ends_with_the_same_bits(
    make_model: Any, digits: Any, tmp_path: Path, at: int, loader: bool
) -> None:
    """Before the first checkpoint, at an epoch's end, on and after a checkpoint in its middle."""
    undisturbed, model = make_model(), make_model()
    expected = train(undisturbed, digits, folder=None, loader=loader)
    with pytest.raises(Killed):
        train(model, digits, folder=tmp_path, loader=loader, callbacks=killing(at))

    torch.manual_seed(99)  # a new process would stand elsewhere too
    again = make_model()
    log = train(again, digits, folder=tmp_path, loader=loader)
    assert_bit_equal(again, undisturbed)
    assert log == expected
    assert log.resumed_at == {1: None, 4: 3, 6: 6, 7: 6, 8: 6, 16: 15}[at]


def test_killed_twice_and_the_log_on_disk_is_whole(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    undisturbed = make_model()
    expected = train(undisturbed, digits, folder=None)
    for at in (5, 11):
        with pytest.raises(Killed):
            train(make_model(), digits, folder=tmp_path, callbacks=killing(at))
    again = make_model()
    train(again, digits, folder=tmp_path)
    assert_bit_equal(again, undisturbed)
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert len(lines) == len(expected.rows) == 4


def test_a_loader_with_its_own_generator(make_model: Any, digits: Any, tmp_path: Path) -> None:
    def generator() -> torch.Generator:
        return torch.Generator().manual_seed(8)

    undisturbed, again = make_model(), make_model()
    train(undisturbed, digits, folder=None, loader=True, generator=generator())
    with pytest.raises(Killed):
        train(
            make_model(),
            digits,
            folder=tmp_path,
            loader=True,
            generator=generator(),
            callbacks=killing(7),
        )
    train(again, digits, folder=tmp_path, loader=True, generator=generator())
    assert_bit_equal(again, undisturbed)


def test_own_optimizer_with_momentum(make_model: Any, digits: Any, tmp_path: Path) -> None:
    def run(model: nn.Module, folder: Path | None, **others: Any) -> None:
        optimizer = torch.optim.NAdam(model.parameters(), lr=0.01)
        train(model, digits, folder=folder, optimizer=optimizer, **others)

    undisturbed, again = make_model(), make_model()
    run(undisturbed, None)
    with pytest.raises(Killed):
        run(make_model(), tmp_path, callbacks=killing(7))
    run(again, tmp_path)
    assert_bit_equal(again, undisturbed)


def test_early_stopping_counts_across_the_interruption(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    settings = FinetuneSettings(epochs=9, patience=2, min_improvement=2.0)  # never improves again
    model = make_model()

    def killed(row: Any) -> None:
        if row.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        callbacks = Callbacks(on_epoch=killed)
        train(model, digits, folder=tmp_path, settings=settings, callbacks=callbacks)
    log = train(make_model(), digits, folder=tmp_path, settings=settings)
    assert (log.stopped, log.best_epoch, len(log.rows)) == ("patience", 1, 3)


def test_a_finished_run_is_not_run_again(make_model: Any, digits: Any, tmp_path: Path) -> None:
    first, second = make_model(), make_model()
    log = train(first, digits, folder=tmp_path)
    again = train(second, digits, folder=tmp_path, callbacks=killing(1))
    assert_bit_equal(first, second)
    assert again == log
    assert again.resumed_at == 16


def test_ctrl_c_says_how_to_go_on(make_model: Any, digits: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt) as caught:
        train(make_model(), digits, folder=tmp_path, callbacks=killing(5, KeyboardInterrupt))
    assert "run the same again to go on from" in caught.value.__notes__[0]
    undisturbed, again = make_model(), make_model()
    train(undisturbed, digits, folder=None)
    train(again, digits, folder=tmp_path)
    assert_bit_equal(again, undisturbed)


def test_a_damaged_newest_checkpoint_costs_only_its_steps(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    undisturbed, again = make_model(), make_model()
    train(undisturbed, digits, folder=None)
    with pytest.raises(Killed):
        train(make_model(), digits, folder=tmp_path, callbacks=killing(10))
    newest = max(tmp_path.glob("checkpoint-*")) / "tensors.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="is damaged .* using the one before it"):
        log = train(again, digits, folder=tmp_path)
    assert log.resumed_at == 8
    assert_bit_equal(again, undisturbed)


HERE = Path(__file__).parent
SCRIPT = """
import sys
from pathlib import Path
sys.path[:0] = {paths!r}
import torch
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)
from test_resume import killed_by_the_system
killed_by_the_system(Path({folder!r}), {moment!r})
"""


def network() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 10)
    )


def run_network(folder: Path | None, callbacks: Callbacks) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(128, 1, 8, 8, generator=generator)
    data = TensorBatches(x, torch.arange(128) % 10, batch_size=16)
    model = network()
    finetune(
        model, data, settings=SETTINGS, loss_fn=LOSS, checkpoint_dir=folder, callbacks=callbacks
    )
    return model


def killed_by_the_system(folder: Path, moment: str) -> None:
    """Runs in a process of its own, which ends itself without any chance to clean up."""
    import os

    from secateur.train import checkpoint

    def end(*args: object, **kwargs: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if moment == "writing":
        write, count = checkpoint.save_file, iter(range(9))

        def save_file(*args: Any) -> None:
            write(*args)
            if next(count) == 2:
                end()

        checkpoint.save_file = save_file

    def on_step(step: int, loss: float) -> None:
        if step == 11:
            fifth = folder / "checkpoint-00000005"  # of step 9, written beside the training
            while not fifth.exists():
                time.sleep(0.01)
            end()

    run_network(folder, Callbacks(on_step=on_step))


@pytest.mark.parametrize("moment", ["training", "writing"])
def test_sigkill_in_training_and_in_the_middle_of_writing(tmp_path: Path, moment: str) -> None:
    paths = [str(HERE), str(HERE.parent.parent / "src")]
    script = SCRIPT.format(paths=paths, folder=str(tmp_path), moment=moment)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = list(tmp_path.glob(".checkpoint-*"))
    assert len(left) == (moment == "writing")
    steps: list[int] = []
    note = Callbacks(on_step=lambda step, loss: steps.append(step))
    resumed = run_network(tmp_path, note)
    assert steps[0] == {"training": 10, "writing": 5}[moment]
    assert_bit_equal(resumed, run_network(None, Callbacks()))
    assert not list(tmp_path.glob(".checkpoint-*"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.5}, r"other settings \(lr was 0.05, is 0.5\); resume with the same ones"),
        ({"epochs": 5, "seed": 1}, r"epochs was 4, is 5; seed was 0, is 1"),
    ],
)
def test_another_runs_checkpoint_is_refused(
    make_model: Any, digits: Any, tmp_path: Path, change: Any, message: str
) -> None:
    from dataclasses import replace

    train(make_model(), digits, folder=tmp_path)
    with pytest.raises(TrainError, match=message):
        train(make_model(), digits, folder=tmp_path, settings=replace(SETTINGS, **change))


def test_another_model_other_data_another_optimizer_are_refused(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    train(make_model(), digits, folder=tmp_path)
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    with pytest.raises(TrainError, match="made for another model; choose another checkpoint_dir"):
        train(other, digits, folder=tmp_path)
    data = TensorBatches(digits.train_x[:64], digits.train_y[:64], batch_size=16)
    with pytest.raises(TrainError, match="made with 8 batches an epoch, the data now has 4"):
        finetune(make_model(), data, settings=SETTINGS, loss_fn=LOSS, checkpoint_dir=tmp_path)
    model = make_model()
    with pytest.raises(TrainError, match="made with AdamW and the optimizer is SGD"):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, digits, folder=tmp_path, optimizer=optimizer)


class Unsteady:
    """Data in an order of its own, anew each time it is read."""

    def __init__(self, digits: Any) -> None:
        self.x, self.y = digits.train_x[:128].split(16), digits.train_y[:128].split(16)
        self.reads = 0

    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Any:
        self.reads += 1
        return iter([(self.x[k - self.reads], self.y[k - self.reads]) for k in range(8)])


def test_data_that_comes_in_another_order_is_said(
    make_model: Any, digits: Any, tmp_path: Path
) -> None:
    data = Unsteady(digits)
    arguments: Any = {"settings": SETTINGS, "loss_fn": LOSS, "checkpoint_dir": tmp_path}
    with pytest.raises(Killed):
        finetune(make_model(), data, callbacks=killing(7), **arguments)
    with pytest.warns(UserWarning, match="came in another order than before the interruption"):
        finetune(make_model(), data, **arguments)
