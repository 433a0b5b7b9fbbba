"""Averages of weights, batch norms taken anew, and schedules that go back, by hand and in runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train import (
    Callbacks,
    Companion,
    Ema,
    FinetuneSettings,
    TensorBatches,
    Training,
    accuracy,
    finetune,
    reestimate_norms_,
    rewound,
)

LOSS = nn.CrossEntropyLoss()


@pytest.fixture
def few(digits: Any) -> TensorBatches:
    return TensorBatches(digits.train_x[:128], digits.train_y[:128], batch_size=32)


class Watch(Companion):
    """Keeps the weights after every step."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def after_step_(self, training: Training) -> None:
        self.seen.append({k: v.clone() for k, v in training.model.state_dict().items()})


@pytest.mark.parametrize("warmup", [False, True])
def test_ema_is_its_formula(make_model: Any, few: TensorBatches, warmup: bool) -> None:
    model, watch = make_model(), Watch()
    mean = {k: v.clone() for k, v in model.state_dict().items()}
    finetune(
        model,
        few,
        settings=FinetuneSettings(epochs=2),
        loss_fn=LOSS,
        companions=(Ema(0.9, warmup=warmup), watch),
    )
    for step, weights in enumerate(watch.seen, start=1):
        decay = min(0.9, (1 + step) / (10 + step)) if warmup else 0.9
        for name, value in weights.items():
            average = decay * mean[name] + (1 - decay) * value
            mean[name] = average if value.is_floating_point() else value
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, mean[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(model[0].weight, watch.seen[-1]["0.weight"])


def test_ema_is_validated_with_and_training_goes_on_from_the_own_weights(
    make_model: Any, few: TensorBatches
) -> None:
    plain, averaged, watches, validated = make_model(), make_model(), (Watch(), Watch()), []

    def validate(model: nn.Module) -> float:
        validated.append(model[0].weight.detach().clone())
        return float(len(validated) == 1)  # the first epoch is the best

    for model, watch, ema in ((plain, watches[0], None), (averaged, watches[1], 0.9)):
        finetune(
            model,
            few,
            settings=FinetuneSettings(epochs=2, ema=ema),
            loss_fn=LOSS,
            validate=validate if ema else None,
            companions=(watch,),
        )
    for a, b in zip(watches[0].seen, watches[1].seen, strict=True):
        assert all(torch.equal(value, b[name]) for name, value in a.items())
    assert not torch.equal(validated[0], watches[0].seen[3]["0.weight"])
    assert torch.equal(averaged[0].weight, validated[0])


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_and_resumed_with_an_average(
    make_model: Any, few: TensorBatches, tmp_path: Path
) -> None:
    settings = FinetuneSettings(epochs=3, ema=0.95, checkpoint_every=3)

    def train(folder: Path | None, at: int | None = None) -> nn.Module:
        def on_step(step: int, loss: float) -> None:
            if step == at:
                raise Killed

        model: nn.Module = make_model()
        finetune(
            model,
            few,
            settings=settings,
            loss_fn=LOSS,
            checkpoint_dir=folder,
            callbacks=Callbacks(on_step=on_step),
        )
        return model

    undisturbed = train(None)
    for at in (5, 11):
        with pytest.raises(Killed):
            train(tmp_path, at)
    expected = undisturbed.state_dict()
    for again in (train(tmp_path), train(tmp_path)):  # the second finds the run finished
        assert all(torch.equal(v, expected[name]) for name, v in again.state_dict().items())
    with pytest.raises(TrainError, match=r"ema was 0.95, is None; companions were Ema, are none"):
        finetune(
            make_model(),
            few,
            settings=FinetuneSettings(epochs=3, checkpoint_every=3),
            loss_fn=LOSS,
            checkpoint_dir=tmp_path,
        )


def test_norms_are_the_mean_of_the_batches(make_model: Any, digits: Any) -> None:
    model = make_model()
    model[1].eval()  # as a user may have frozen it
    momentum, weights = model[1].momentum, model[0].weight.clone()
    batches = [(x, None) for x in digits.train_x[:96].split(32)]
    assert reestimate_norms_(model, batches, batches=2) == 1
    with torch.no_grad():
        outputs = [model[0](x).transpose(0, 1).flatten(1) for x, _ in batches[:2]]
    means = torch.stack([part.mean(1) for part in outputs]).mean(0)
    variances = torch.stack([part.var(1) for part in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean, means)
    torch.testing.assert_close(model[1].running_var, variances)
    assert (model[1].momentum, model[1].training, model.training) == (momentum, False, True)
    assert torch.equal(model[0].weight, weights)


def test_norms_put_right_what_a_change_of_weights_spoilt(digits: Any, make_model: Any) -> None:
    model, data = make_model(), TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    finetune(model, data, settings=FinetuneSettings(epochs=3, lr=0.1), loss_fn=LOSS)
    test = [(digits.test_x, digits.test_y)]
    good = accuracy(model, test)
    with torch.no_grad():
        model[0].weight.mul_(torch.logspace(-1, 1, 8)[:, None, None, None])
        model[0].bias.mul_(torch.logspace(-1, 1, 8))
    assert accuracy(model, test) < good - 0.1
    reestimate_norms_(model, data)
    assert accuracy(model, test) > good - 0.02


def test_norms_without_data_or_without_norms(make_model: Any) -> None:
    model = make_model()
    before = model[1].running_mean.clone()
    with pytest.raises(TrainError, match="at least one batch"):
        reestimate_norms_(model, [])
    assert torch.equal(model[1].running_mean, before)
    assert reestimate_norms_(nn.Linear(1, 1), [torch.ones(1, 1)]) == 0
    mapped = nn.Sequential(nn.BatchNorm1d(1))
    reestimate_norms_(mapped, [{"input": torch.ones(2, 1)}])
    assert mapped[0].running_mean.tolist() == [1.0]


def test_rewinding_trains_the_last_epochs_with_their_original_rates(
    make_model: Any, few: TensorBatches
) -> None:
    original = FinetuneSettings(epochs=5, lr=0.1, schedule="cosine", warmup=0.2)
    orders: list[list[int]] = []

    class Order(Companion):
        def after_epoch_(self, training: Training) -> None:
            orders.append([training.epoch, training.step])

    whole = finetune(make_model(), few, settings=original, loss_fn=LOSS)
    settings = rewound(original, to=3)
    log = finetune(make_model(), few, settings=settings, loss_fn=LOSS, companions=(Order(),))
    assert [(r.epoch, r.step, r.lr) for r in log] == [(r.epoch, r.step, r.lr) for r in whole][3:]
    assert orders == [[3, 16], [4, 20]]
    with pytest.raises(ValueError, match="below epochs=5"):
        rewound(original, to=5)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_wrong_decays(decay: float) -> None:
    with pytest.raises(ValueError, match=r"decay.* in \(0, 1\)"):
        Ema(decay)
    with pytest.raises(ValueError, match=r"decay in \(0, 1\)"):
        FinetuneSettings(ema=decay)
