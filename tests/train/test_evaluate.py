"""Accuracy and loss by hand, over unequal batches, without touching the model."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from secateur.core.errors import TrainError
from secateur.train import accuracy, evaluate, mean_loss

EYE = torch.eye(3) * 4
DATA = [(EYE, torch.tensor([0, 1, 0])), (EYE[:1], torch.tensor([0]))]


def test_accuracy_loss_and_predictions_by_hand() -> None:
    result = evaluate(nn.Identity(), DATA, loss_fn=nn.CrossEntropyLoss())
    assert result.accuracy == accuracy(nn.Identity(), DATA) == 0.75
    assert result.predictions.tolist() == [0, 1, 2, 0]
    assert result.labels.tolist() == [0, 1, 0, 0]
    # log(e^4 + 2) is the normaliser; three labels hit the 4, one hits a 0
    normaliser = torch.log(torch.exp(torch.tensor(4.0)) + 2).item()
    assert result.loss == pytest.approx(normaliser - 3)
    assert mean_loss(nn.Identity(), DATA, loss_fn=nn.CrossEntropyLoss()) == pytest.approx(
        normaliser - 3
    )


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    model.train()
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert accuracy(model, DATA) == 0.75
    assert model.training
    assert not model[0].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class OwnLoss(nn.Module):
    """As Hugging Face models: keyword arguments in, an object with logits and loss out."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=x, loss=nn.functional.cross_entropy(x, labels))


def test_mapping_batches() -> None:
    data = [{"x": x, "labels": y} for x, y in DATA]
    assert accuracy(OwnLoss(), data) == 0.75
    assert mean_loss(OwnLoss(), data) == pytest.approx(
        mean_loss(nn.Identity(), DATA, loss_fn=nn.CrossEntropyLoss())
    )


def test_what_is_no_classification_is_an_error() -> None:
    with pytest.raises(TrainError, match=r"not \[3, 3\] torch.float32 and \[3\] torch.float32"):
        accuracy(nn.Identity(), [(EYE, torch.ones(3))])
    with pytest.raises(TrainError, match="give a metric of your own"):
        accuracy(nn.Identity(), [(torch.ones(3), torch.ones(3))])
    with pytest.raises(TrainError, match="labels run from 0 to 7, but the model has 3 outputs"):
        accuracy(nn.Identity(), [(EYE, torch.tensor([0, 1, 7]))])
    with pytest.raises(TrainError, match="the data is empty"):
        accuracy(nn.Identity(), [])
    with pytest.raises(TrainError, match="the data is empty"):
        mean_loss(nn.Identity(), [], loss_fn=nn.CrossEntropyLoss())
