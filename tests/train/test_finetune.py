"""Fine-tuning learns, stops, keeps the best, and says clearly why it cannot go on."""

from __future__ import annotations

import json
import math
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from secateur.core.errors import TrainError
from secateur.train import (
    Callbacks,
    FinetuneSettings,
    TensorBatches,
    accuracy,
    finetune,
)

LOSS = nn.CrossEntropyLoss()


@pytest.fixture
def data(digits: Any) -> TensorBatches:
    return TensorBatches(digits.train_x, digits.train_y, batch_size=64)


@pytest.fixture
def few(digits: Any) -> TensorBatches:
    """Four batches, for tests where nothing has to be learned."""
    return TensorBatches(digits.train_x[:64], digits.train_y[:64], batch_size=16)


def weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "one_cycle", "lr": 0.1},
        {"schedule": "linear", "warmup": 0.1, "clip_norm": 1.0, "accumulate": 2, "lr": 0.1},
        {"optimizer": "adamw", "lr": 0.01, "precision": "bfloat16"},
    ],
)
def test_it_learns_digits(make_model: Any, digits: Any, data: Any, changes: Any) -> None:
    model = make_model()
    test = [(digits.test_x, digits.test_y)]
    log = finetune(
        model,
        data,
        settings=FinetuneSettings(epochs=6, **changes),
        loss_fn=nn.CrossEntropyLoss(label_smoothing=0.05),
        validate=lambda m: accuracy(m, test),
    )
    assert accuracy(model, test) > 0.95
    assert accuracy(model, test) == log.best_metric == max(row.metric or 0 for row in log)
    assert log.rows[-1].loss < log.rows[0].loss / 2
    assert next(iter(model.parameters())).dtype == torch.float32


def test_the_log_has_a_line_for_each_epoch(make_model: Any, few: Any) -> None:
    seen: list[int] = []
    log = finetune(
        make_model(),
        few,
        settings=FinetuneSettings(epochs=3, schedule="linear", lr=0.1),
        loss_fn=LOSS,
        callbacks=Callbacks(on_step=lambda step, loss: seen.append(step)),
    )
    lines = [json.loads(line) for line in log.to_jsonl().splitlines()]
    assert [(line["epoch"], line["step"]) for line in lines] == [(1, 4), (2, 8), (3, 12)]
    assert [line["lr"] for line in lines] == pytest.approx([0.1 * f / 12 for f in (9, 5, 1)])
    assert lines[0]["metric"] is None
    assert (log.stopped, log.best_epoch, log.resumed_at) == ("epochs", None, None)
    assert seen == list(range(1, 13))


def test_patience_stops_and_the_best_epochs_weights_are_kept(make_model: Any, few: Any) -> None:
    metrics = iter([0.5, 0.7, 0.6, 0.7, 0.9])
    after: list[dict[str, torch.Tensor]] = []
    model = make_model()

    def validate(m: nn.Module) -> float:
        assert not m.training
        assert not torch.is_grad_enabled()
        after.append(weights(m))
        return next(metrics)

    log = finetune(
        model,
        few,
        settings=FinetuneSettings(epochs=9, patience=2),
        loss_fn=LOSS,
        validate=validate,
    )
    assert (log.stopped, log.best_epoch, log.best_metric, len(log.rows)) == ("patience", 2, 0.7, 4)
    assert all(torch.equal(value, after[1][name]) for name, value in model.state_dict().items())
    assert not torch.equal(after[1]["0.weight"], after[3]["0.weight"])
    assert model.training


def test_same_seed_same_weights_and_the_callers_generator_is_left_alone(
    make_model: Any, few: Any
) -> None:
    settings = FinetuneSettings(epochs=1, seed=3)
    a, b, c = make_model(), make_model(), make_model()
    torch.manual_seed(11)
    finetune(a, few, settings=settings, loss_fn=LOSS)
    drawn = torch.rand(3)
    torch.manual_seed(11)
    assert torch.equal(drawn, torch.rand(3))
    few.set_epoch(0)
    finetune(b, few, settings=settings, loss_fn=LOSS)
    assert same(a, b)
    finetune(c, few, settings=FinetuneSettings(epochs=1, seed=4), loss_fn=LOSS)
    assert not same(a, c)


def test_accumulating_equals_one_big_batch(digits: Any) -> None:
    """Without batch norm and dropout, two batches of 16 make the step of one of 32."""
    x, y = digits.train_x[:64], digits.train_y[:64]

    def train(batch_size: int, accumulate: int) -> nn.Module:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double()
        finetune(
            model,
            TensorBatches(x.double(), y, batch_size=batch_size, shuffle=False),
            settings=FinetuneSettings(epochs=2, accumulate=accumulate),
            loss_fn=LOSS,
        )
        return model

    one, two = train(32, 1), train(16, 2)
    torch.testing.assert_close(one[1].weight, two[1].weight, rtol=0, atol=1e-14)


def test_clipping_bounds_the_step(make_model: Any, few: Any) -> None:
    model = make_model()
    before = weights(model)
    settings = FinetuneSettings(
        epochs=1, steps_per_epoch=1, schedule="constant", lr=1.0, momentum=0.0, clip_norm=0.01
    )
    finetune(model, few, settings=settings, loss_fn=LOSS)
    moved = sum(
        float((p.detach() - before[name]).square().sum()) for name, p in model.named_parameters()
    )
    assert moved**0.5 == pytest.approx(0.01, rel=1e-3)


def test_own_optimizer_is_scheduled_group_by_group(make_model: Any, few: Any) -> None:
    model = make_model()
    optimizer = torch.optim.RMSprop(
        [
            {"params": model[0].parameters(), "lr": 1e-3},
            {"params": model[5].parameters(), "lr": 1e-4},
        ]
    )
    settings = FinetuneSettings(epochs=2, schedule="linear")
    finetune(model, few, settings=settings, loss_fn=LOSS, optimizer=optimizer)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates == pytest.approx([1e-3 / 8, 1e-4 / 8])


class OwnLoss(nn.Module):
    """As Hugging Face models: keyword arguments in, an object with the loss out."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor, labels: torch.Tensor | None = None) -> SimpleNamespace:
        logits = self.linear(x.flatten(1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SimpleNamespace(logits=logits, loss=loss)


def test_models_that_compute_their_own_loss(digits: Any) -> None:
    model = OwnLoss()
    data = [
        {"x": x, "labels": y}
        for x, y in zip(digits.train_x.split(64), digits.train_y.split(64), strict=True)
    ]
    log = finetune(model, data, settings=FinetuneSettings(epochs=5, lr=0.3))
    assert log.rows[-1].loss < log.rows[0].loss
    assert accuracy(model, data) > 0.9
    own = finetune(
        OwnLoss(),
        data,
        settings=FinetuneSettings(epochs=1),
        loss_fn=lambda out, batch: LOSS(out.logits, batch["labels"]) * 0 + 7,
    )
    assert own.rows[0].loss == 7


def test_a_data_loader_works(make_model: Any, digits: Any) -> None:
    loader = DataLoader(TensorDataset(digits.train_x, digits.train_y), batch_size=64, shuffle=True)
    model = make_model()
    finetune(model, loader, settings=FinetuneSettings(epochs=3, lr=0.1), loss_fn=LOSS)
    assert accuracy(model, [(digits.test_x, digits.test_y)]) > 0.9


class Stream(IterableDataset[Any]):
    def __init__(self, digits: Any) -> None:
        self.digits = digits

    def __iter__(self) -> Any:
        return iter(zip(self.digits.train_x[:64], self.digits.train_y[:64], strict=True))


def test_data_without_a_length(make_model: Any, digits: Any) -> None:
    loader = DataLoader(Stream(digits), batch_size=16)
    with pytest.raises(TrainError, match=r"'cosine' must know .* set steps_per_epoch"):
        finetune(make_model(), loader, settings=FinetuneSettings(epochs=2), loss_fn=LOSS)
    constant = FinetuneSettings(epochs=2, schedule="constant")
    log = finetune(make_model(), loader, settings=constant, loss_fn=LOSS)
    assert log.rows[-1].step == 8
    limited = FinetuneSettings(epochs=2, steps_per_epoch=3)
    assert finetune(make_model(), loader, settings=limited, loss_fn=LOSS).rows[-1].step == 6


@pytest.mark.filterwarnings("ignore:overflow")
def test_a_diverging_loss_puts_the_best_weights_back(make_model: Any, few: Any) -> None:
    model = make_model()
    start = weights(model)
    spoil = iter([LOSS] * 6 + [lambda out, y: LOSS(out, y) * float("nan")])
    good: list[dict[str, torch.Tensor]] = []

    def loss_fn(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return next(spoil)(outputs, labels)

    with pytest.raises(TrainError) as caught:
        finetune(
            model,
            few,
            settings=FinetuneSettings(epochs=3, lr=0.05),
            loss_fn=loss_fn,
            callbacks=Callbacks(on_epoch=lambda row: good.append(weights(model))),
        )
    message = str(caught.value)
    assert "the loss became nan in epoch 2, after 6 steps" in message
    assert "The weights of epoch 1 were put back. Try lr=0.005, clip_norm=1.0" in message
    assert all(torch.equal(value, good[0][name]) for name, value in model.state_dict().items())
    assert not torch.equal(good[0]["0.weight"], start["0.weight"])


def test_divergence_in_the_first_epoch_puts_the_start_back(make_model: Any, few: Any) -> None:
    model = make_model()
    start = weights(model)
    settings = FinetuneSettings(epochs=3, lr=1e30, schedule="constant")
    with pytest.raises(TrainError, match="The weights of the start were put back"):
        finetune(model, few, settings=settings, loss_fn=LOSS)
    assert all(torch.equal(value, start[name]) for name, value in model.state_dict().items())


def test_gradients_that_are_nan_are_found_though_the_loss_is_fine(few: Any) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def loss_fn(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return (outputs * 0).sum().sqrt()  # 0, with an infinite slope times 0

    for clip_norm, message in ((None, "the weights of 1.weight"), (1.0, "the gradient norm")):
        settings = FinetuneSettings(epochs=1, steps_per_epoch=1, clip_norm=clip_norm)
        with pytest.raises(TrainError, match=message):
            finetune(model, few, settings=settings, loss_fn=loss_fn)
        assert torch.isfinite(model[1].weight).all()


def test_a_metric_that_is_nan_is_an_error(make_model: Any, few: Any) -> None:
    with pytest.raises(TrainError, match="the validation metric became nan in epoch 1"):
        finetune(
            make_model(),
            few,
            settings=FinetuneSettings(epochs=1),
            loss_fn=LOSS,
            validate=lambda m: float("nan"),
        )


def test_nan_weights_are_found_before_the_first_step(make_model: Any, few: Any) -> None:
    model = make_model()
    with torch.no_grad():
        model[5].bias[3] = float("nan")
    with pytest.raises(TrainError, match=r"weights of 5\.bias hold NaN or infinity before"):
        finetune(model, few, settings=FinetuneSettings(), loss_fn=LOSS)


@pytest.mark.parametrize("loss_fn", [LOSS, nn.functional.cross_entropy, lambda o, y: LOSS(o, y)])
def test_labels_out_of_range(make_model: Any, digits: Any, loss_fn: Any) -> None:
    data = [(digits.train_x[:20], digits.train_y[:20] + 1)]
    with pytest.raises(TrainError, match=r"labels run from 1 to 10, but .* 10 outputs"):
        finetune(make_model(), data, settings=FinetuneSettings(epochs=1), loss_fn=loss_fn)


def test_ignored_labels_are_no_error(make_model: Any, digits: Any) -> None:
    labels = digits.train_y[:20].clone()
    labels[3] = -100
    data = [(digits.train_x[:20], labels)]
    first = finetune(make_model(), data, settings=FinetuneSettings(epochs=1), loss_fn=LOSS)
    labels[3] = 99
    loss = nn.CrossEntropyLoss(ignore_index=99)
    second = finetune(make_model(), data, settings=FinetuneSettings(epochs=1), loss_fn=loss)
    assert all(math.isfinite(row.loss) for log in (first, second) for row in log)


def test_labels_out_of_range_for_a_model_with_its_own_loss(digits: Any) -> None:
    data = [{"x": digits.train_x[:20], "labels": digits.train_y[:20] + 1}]
    with pytest.raises(TrainError, match="labels run from 1 to 10"):
        finetune(OwnLoss(), data, settings=FinetuneSettings(epochs=1))


def test_what_cannot_be_started_says_why(make_model: Any, digits: Any, few: Any) -> None:
    def refuse(message: str, data: Any = few, **others: Any) -> None:
        model = others.pop("model", None) or make_model()
        arguments = {"settings": FinetuneSettings(epochs=1), "loss_fn": LOSS, **others}
        with pytest.raises(TrainError, match=message):
            finetune(model, data, **arguments)

    dataset = TensorDataset(digits.train_x[:10], digits.train_y[:10])
    big = DataLoader(dataset, batch_size=16, drop_last=True)
    refuse("train_data has no batch", [])
    refuse("batch_size 16 is bigger than its data of 10 samples and drop_last", big)
    refuse("list_iterator, which can be read only once", iter([]))
    refuse("the batches are .* no loss_fn", loss_fn=None)
    refuse(
        "returned no loss .* x; add 'labels'",
        [{"x": digits.train_x}],
        model=OwnLoss(),
        loss_fn=None,
    )
    refuse("has no parameter that requires a gradient", model=make_model().requires_grad_(False))
    refuse(
        "4 of the optimizer's 6 parameters are not the model's|6 of the optimizer's 6",
        optimizer=torch.optim.SGD(make_model().parameters(), lr=0.1),
    )
    refuse('"float16" needs a GPU', settings=FinetuneSettings(precision="float16"))


def test_patience_without_validation_is_a_wrong_argument(make_model: Any, few: Any) -> None:
    with pytest.raises(ValueError, match="patience needs a validation"):
        finetune(make_model(), few, settings=FinetuneSettings(patience=1), loss_fn=LOSS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer": "adan"}, "unknown optimizer 'adan'; there are: sgd, adamw"),
        ({"schedule": "step"}, "unknown schedule 'step'; there are: constant, cosine, linear, one"),
        ({"precision": "fp8"}, "unknown precision 'fp8'; there are: float32, bfloat16, float16"),
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": -1.0}, "lr must be a positive number"),
        ({"warmup": 1.0}, "share of all steps"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"patience": 0}, "patience must be at least 1"),
    ],
)
def test_wrong_settings(changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FinetuneSettings(**changes)


def test_no_bar_unless_stderr_is_a_terminal(
    make_model: Any, few: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    settings = FinetuneSettings(epochs=1)
    finetune(make_model(), few, settings=settings, loss_fn=LOSS)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    finetune(make_model(), few, settings=settings, loss_fn=LOSS)
    out, err = capsys.readouterr()
    assert out == ""
    assert "fine-tuning" in err
    monkeypatch.setenv("RANK", "1")
    finetune(make_model(), few, settings=settings, loss_fn=LOSS)
    assert capsys.readouterr() == ("", "")
