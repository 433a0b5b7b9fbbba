"""Distillation: each term against a naive loop of its formula, whole runs, and what is refused."""

from __future__ import annotations

import copy
import importlib
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train import (
    AttentionMaps,
    AttentionTransfer,
    Callbacks,
    Features,
    FinetuneSettings,
    Logits,
    Outputs,
    TensorBatches,
    accuracy,
    distilled,
    finetune,
)
from secateur.train.distil_terms import Seen

LOSS = nn.CrossEntropyLoss()
SETTINGS = FinetuneSettings(epochs=2, lr=0.05, checkpoint_every=3)


def seen(student: Any, teacher: Any, batch: Any = None, features: Any = ()) -> Seen:
    return Seen(batch, student, teacher, features)


def network(width: int, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU()),
        nn.Sequential(nn.Conv2d(width, 2 * width, 3, stride=2), nn.ReLU()),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(8 * width, 10),
    )


@pytest.fixture
def few(digits: Any) -> TensorBatches:
    return TensorBatches(digits.train_x[:128], digits.train_y[:128], batch_size=32)


def test_logits_are_hintons_formula_by_hand() -> None:
    s, t, temperature = torch.randn(3, 4), torch.randn(3, 4), 2.5
    total = 0.0
    for i in range(3):
        p = [math.exp(float(v) / temperature) for v in t[i]]
        q = [math.exp(float(v) / temperature) for v in s[i]]
        for pk, qk in zip(p, q, strict=True):
            total += pk / sum(p) * math.log(pk / sum(p) / (qk / sum(q)))
    found = Logits(temperature=temperature).loss(seen(s, t))
    assert float(found) == pytest.approx(temperature**2 * total / 3, rel=1e-5)
    assert float(Logits().loss(seen(t, t))) == pytest.approx(0, abs=1e-6)


def test_logits_of_tokens_and_of_pixels() -> None:
    s, t = torch.randn(2, 5, 7), torch.randn(2, 5, 7)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]])
    tokens = Logits().loss(seen(SimpleNamespace(logits=s), SimpleNamespace(logits=t), {"a": 1}))
    rows = [Logits().loss(seen(s[b, k][None], t[b, k][None])) for b in range(2) for k in range(5)]
    torch.testing.assert_close(tokens, torch.stack(rows).mean())
    real = Logits().loss(seen(s, t, {"attention_mask": mask}))
    kept = [row for row, keep in zip(rows, mask.flatten().tolist(), strict=True) if keep]
    torch.testing.assert_close(real, torch.stack(kept).mean())
    pixels = Logits().loss(seen(s[:, :, :, None], t[:, :, :, None]))  # 5 classes, 7 x 1 pixels
    rows = [
        Logits().loss(seen(s[b, :, k][None], t[b, :, k][None]))
        for b in range(2)
        for k in (*range(7),)
    ]
    torch.testing.assert_close(pixels, torch.stack(rows).mean())


def test_outputs_by_hand() -> None:
    s, t = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert float(Outputs().loss(seen(s, t))) == pytest.approx((1 + 1 + 0 + 1) / 4)
    assert float(Outputs(kind="cosine").loss(seen(s, t))) == pytest.approx((1 + 0) / 2)
    first = Outputs(select=lambda outputs, batch: outputs["x"][:, :1])
    assert float(first.loss(seen({"x": s}, {"x": t}))) == pytest.approx(0.5)


def test_features_and_attention_transfer_by_hand() -> None:
    s, t = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    found = Features().loss(seen(None, None, None, ((s, t), (t, t))))
    torch.testing.assert_close(found, (s - t).square().sum() / t.square().sum() / 2)
    total = 0.0
    for i in range(2):
        maps = []
        for part in (s[i], t[i]):
            q = sum(part[c].square() for c in range(3)).flatten()
            maps.append(q / q.norm())
        total += float((maps[0] - maps[1]).norm())
    transfer = AttentionTransfer().loss(seen(None, None, None, ((s, t),)))
    assert float(transfer) == pytest.approx(total / 2, rel=1e-5)
    wide = torch.randn(2, 9, 4, 4)
    assert AttentionTransfer().loss(seen(None, None, None, ((s, wide),))).isfinite()


def test_attention_maps_by_hand() -> None:
    def attention(layers: int, heads: int) -> SimpleNamespace:
        maps = [torch.randn(2, heads, 3, 3).softmax(-1) for _ in range(layers)]
        return SimpleNamespace(attentions=tuple(maps))

    ours, theirs = attention(2, 2), attention(4, 2)
    pairs = [(ours.attentions[0], theirs.attentions[1]), (ours.attentions[1], theirs.attentions[3])]
    expected = [(t * (t / s).log()).sum(-1).mean() for s, t in pairs]
    found = AttentionMaps().loss(seen(ours, theirs, {}))
    torch.testing.assert_close(found, torch.stack(expected).mean())
    torch.testing.assert_close(
        AttentionMaps(layers="last").loss(seen(ours, theirs, {})), expected[1]
    )
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    rows = (pairs[1][1] * (pairs[1][1] / pairs[1][0]).log()).sum(-1).mean(1)
    masked = AttentionMaps(layers="last").loss(seen(ours, theirs, {"attention_mask": mask}))
    torch.testing.assert_close(masked, rows[mask != 0].mean())
    fewer = AttentionMaps().loss(seen(attention(2, 1), theirs, {}))
    assert fewer.isfinite()


@pytest.fixture(scope="module")
def taught(digits: Any) -> nn.Module:
    """A wide network that knows the digits."""
    teacher = network(12)
    data = TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    finetune(teacher, data, settings=FinetuneSettings(epochs=3, lr=0.1), loss_fn=LOSS)
    return teacher.requires_grad_(False)


TERMS = {
    "logits": (Logits(temperature=2.0),),
    "outputs": (Outputs(0.1),),
    "features": (Features(weight=0.5), Logits()),
    "some features": (Features(["1"]),),
    "transfer": (AttentionTransfer(["0", "1"], weight=2.0),),
}


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_a_narrow_student_learns_from_a_wide_teacher(
    digits: Any, taught: nn.Module, terms: Any
) -> None:
    teacher, student = taught, network(4, seed=1)
    data = TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    settings = FinetuneSettings(epochs=3, lr=0.1)
    before = copy.deepcopy(teacher.state_dict())
    objective = distilled(LOSS, teacher, terms=terms)
    finetune(student, data, settings=settings, objective=objective)
    assert accuracy(student, [(digits.test_x, digits.test_y)]) > 0.85
    assert teacher.training  # its own mode came back
    assert all(torch.equal(v, before[name]) for name, v in teacher.state_dict().items())
    assert not any(module._forward_hooks for module in (*student.modules(), *teacher.modules()))


def test_without_labels_and_with_a_teacher_in_low_precision(digits: Any) -> None:
    teacher, student = network(8).to(torch.bfloat16), network(4, seed=1)
    objective = distilled(None, teacher, terms=(Outputs(),), hard=0.0)
    data = [(x,) for x in digits.train_x[:256].split(64)]
    log = finetune(student, data, settings=FinetuneSettings(epochs=4, lr=0.05), objective=objective)
    assert log.rows[-1].loss < 0.7 * log.rows[0].loss
    bare = [x for (x,) in data]
    finetune(student, bare, settings=FinetuneSettings(epochs=1), objective=objective)


def test_projections_are_trained_and_thrown_away(few: TensorBatches) -> None:
    student = network(4, seed=1)
    objective = distilled(LOSS, network(6), terms=(Features("same"),))
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    names = set(student.state_dict())
    untrained: list[Tensor] = []

    def on_step(step: int, loss: float) -> None:
        if step == 1:
            untrained.extend(p.detach().clone() for p in objective.parameters())

    finetune(
        student,
        few,
        settings=SETTINGS,
        objective=objective,
        optimizer=optimizer,
        callbacks=Callbacks(on_step=on_step),
    )
    trained = list(objective.parameters())
    assert [tuple(p.shape) for p in trained] == [(6, 4), (12, 8)]
    assert not any(torch.equal(a, b) for a, b in zip(trained, untrained, strict=True))
    assert set(student.state_dict()) == names
    assert len(optimizer.param_groups) == 1
    assert set(optimizer.state) == set(student.parameters())


class Killed(BaseException):
    """Stands for the end of the process."""


def test_killed_and_resumed_ends_with_the_same_bits(few: TensorBatches, tmp_path: Path) -> None:
    def train(folder: Path | None, at: int | None = None) -> tuple[nn.Module, list[Tensor]]:
        def on_step(step: int, loss: float) -> None:
            if step == at:
                raise Killed

        student, objective = network(4, seed=1), distilled(LOSS, network(6), terms=(Features(),))
        settings = FinetuneSettings(epochs=3, optimizer="adamw", checkpoint_every=3)
        finetune(
            student,
            few,
            settings=settings,
            objective=objective,
            checkpoint_dir=folder,
            callbacks=Callbacks(on_step=on_step),
        )
        return student, list(objective.parameters())

    undisturbed, projections = train(None)
    with pytest.raises(Killed):
        train(tmp_path, at=7)
    torch.manual_seed(99)
    again, theirs = train(tmp_path)
    for mine, expected in zip(
        (*again.parameters(), *theirs), (*undisturbed.parameters(), *projections), strict=True
    ):
        assert torch.equal(mine, expected)


class Tokens(nn.Module):
    """As a Hugging Face model: a config with a vocabulary, keyword arguments, an output object."""

    def __init__(self, vocabulary: int, width: int = 6) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocabulary)
        self.embed = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
        logits = self.head(self.embed(input_ids))
        loss = None if labels is None else LOSS(logits.flatten(0, 1), labels.flatten())
        return SimpleNamespace(logits=logits, loss=loss)


IDS = {"input_ids": torch.tensor([[9, 2, 3]]), "labels": torch.tensor([[1, 2, 3]])}


def follow(student: nn.Module, data: Any, objective: Any) -> None:
    finetune(student, data, settings=FinetuneSettings(epochs=1), objective=objective)


def test_a_teacher_with_another_vocabulary_or_number_of_classes(few: TensorBatches) -> None:
    student = Tokens(10)
    with pytest.raises(TrainError, match="vocabulary of 12 tokens and the student one of 10"):
        follow(student, [IDS], distilled(None, Tokens(12)))
    translated = distilled(None, Tokens(12), teacher_inputs=lambda batch: batch)
    with pytest.raises(
        TrainError, match=r"tells 12 classes apart and the student 10 .* same classes, or vocab"
    ):
        follow(student, [IDS], translated)
    follow(student, [IDS], distilled(None, Tokens(10)))
    wide = nn.Sequential(nn.Flatten(), nn.Linear(64, 12))
    with pytest.raises(TrainError, match="tells 12 classes apart and the student 10"):
        follow(network(4), few, distilled(LOSS, wide))


def test_a_batch_that_the_teacher_does_not_understand(few: TensorBatches) -> None:
    with pytest.raises(
        TrainError,
        match=r"teacher Linear does not take a batch of \(32, 1, 8, 8\) .*teacher_inputs=",
    ):
        follow(network(4), few, distilled(LOSS, nn.Linear(3, 10)))
    small = Tokens(10)
    small.embed = nn.Embedding(5, 6)
    with pytest.raises(TrainError, match=r"Tokens does not take a batch of input_ids \(1, 3\)"):
        follow(Tokens(10), [IDS], distilled(None, small))


def test_what_else_is_refused(few: TensorBatches) -> None:
    student, teacher = network(4), network(6)
    with pytest.raises(TrainError, match="shares weights with the student"):
        follow(student, few, distilled(LOSS, student))
    missing = distilled(LOSS, teacher, terms=(Features({"0": "stage1"}),))
    with pytest.raises(TrainError, match="the teacher Sequential has no module 'stage1'"):
        follow(student, few, missing)
    mistyped = distilled(LOSS, teacher, terms=(Features(["00.1"]),))
    with pytest.raises(
        TrainError, match=r"student Sequential has no module '00.1'; did you mean '0.1'"
    ):
        follow(student, few, mistyped)
    stages = distilled(LOSS, teacher, terms=(Features({"0": "3"}),))
    with pytest.raises(TrainError, match="differ in more than their width"):
        follow(student, few, stages)
    with pytest.raises(TrainError, match="gave no attention maps"):
        follow(student, few, distilled(LOSS, teacher, terms=(AttentionMaps(),)))
    with pytest.raises(TrainError, match="the projections must be trained"):
        distilled(LOSS, teacher, terms=(Features(),))(student, next(iter(few)))
    with pytest.raises(ValueError, match="loss_fn and objective were both given"):
        finetune(student, few, settings=SETTINGS, loss_fn=LOSS, objective=distilled(LOSS, teacher))
    for wrong in (
        lambda: Logits(temperature=0.0),
        lambda: Outputs(kind="l1"),
        lambda: AttentionMaps(layers="first"),
        lambda: distilled(LOSS, teacher, terms=()),
    ):
        with pytest.raises(ValueError, match=r"must be|unknown|give at least"):
            wrong()


def test_a_transformers_attention_and_hidden_states(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "zoo")
    importlib.import_module("torchvision_ops").define_torchvision_ops()
    transformers = pytest.importorskip("transformers")

    def bert(heads: int, layers: int, **options: Any) -> nn.Module:
        torch.manual_seed(heads)
        config = transformers.BertConfig(
            vocab_size=20,
            hidden_size=8 * heads,
            num_attention_heads=heads,
            num_hidden_layers=layers,
            intermediate_size=16,
            max_position_embeddings=8,
            **options,
        )
        return transformers.BertForSequenceClassification(config)

    teacher = bert(4, 4, attn_implementation="eager")
    ids = torch.randint(0, 20, (4, 6))
    mask = torch.ones_like(ids)
    mask[:2, 4:] = 0
    data = [{"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])}]
    layers = {f"bert.encoder.layer.{k}": f"bert.encoder.layer.{2 * k + 1}" for k in range(2)}
    terms = (Logits(), Features(layers), AttentionMaps())
    student = bert(2, 2, attn_implementation="eager")
    objective = distilled(None, teacher, terms=terms)
    log = finetune(student, data, settings=FinetuneSettings(epochs=20, lr=0.1), objective=objective)
    assert log.rows[-1].loss < log.rows[0].loss
    assert [tuple(p.shape) for p in objective.parameters()] == [(32, 16), (32, 16)]
