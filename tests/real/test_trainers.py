"""MiniLM under the Hugging Face Trainer and a CNN under Lightning: pruned, killed, and resumed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from secateur.core.errors import TrainError
from secateur.cut import cut
from secateur.storage import save
from secateur.train import GradualSettings, TensorBatches, accuracy
from secateur.train.huggingface_trainer import huggingface_callback
from secateur.train.lightning_trainer import lightning_callback

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # those of the trainers themselves
]


class Killed(BaseException):
    """Stands for the end of the process."""


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


@pytest.fixture(scope="module")
def sentences(minilm_folder: Path) -> list[dict[str, Tensor]]:
    """Lines of five documents, each labelled with its document."""
    transformers = pytest.importorskip("transformers")
    import sklearn

    folder = Path(sklearn.__file__).parent / "datasets" / "descr"
    names = ("california_housing", "olivetti_faces", "lfw", "twenty_newsgroups", "kddcup99")
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm_folder)
    rows = []
    for label, name in enumerate(names):
        words = (folder / f"{name}.rst").read_text(encoding="utf-8").split()
        for start in range(0, min(len(words), 480) - 12, 12):
            text = " ".join(words[start : start + 12])
            coded = tokenizer(text, padding="max_length", truncation=True, max_length=24)
            rows.append(
                {**{k: torch.tensor(v) for k, v in coded.items()}, "labels": torch.tensor(label)}
            )
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[k] for k in order]


def test_minilm_under_the_hugging_face_trainer(
    minilm_folder: Path, sentences: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    def train(folder: Path, at: int | None = None, **changes: Any) -> tuple[Any, Any, Any]:
        class Kill(transformers.TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
                if state.global_step == at:
                    raise Killed

        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            minilm_folder, num_labels=5
        )
        inputs = {key: value[None] for key, value in sentences[0].items() if key != "labels"}
        pruning = huggingface_callback(
            model,
            inputs,
            settings=GradualSettings("macs=60%", cuts=3, huggingface=True),
        )
        arguments = transformers.TrainingArguments(
            output_dir=str(folder),
            num_train_epochs=3,
            per_device_train_batch_size=16,
            learning_rate=3e-4,
            save_steps=7,
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            seed=3,
            **changes,
        )
        trainer = transformers.Trainer(
            model, arguments, train_dataset=sentences, callbacks=[pruning, Kill()]
        )
        resumed = pruning.resume_(folder)
        trainer.train(resume_from_checkpoint=resumed)
        return model, pruning, resumed

    undisturbed, pruning, _ = train(tmp_path / "a")
    log = pruning.pruner.log()
    print(f"macs {log.rows[-1].remaining:.3f}, spent {log.macs_spent / log.macs_dense:.3f}")
    assert log.rows[-1].remaining <= 0.6
    assert log.macs_spent < 0.85 * log.macs_dense
    for at in (10, 20, 30):
        with pytest.raises(Killed):
            train(tmp_path / "b", at)
    again, theirs, resumed = train(tmp_path / "b")
    assert Path(resumed).name == "checkpoint-28"
    assert same(again, undisturbed)
    assert theirs.pruner.log() == log
    batch = {key: torch.stack([row[key] for row in sentences]) for key in sentences[0]}
    undisturbed.eval()
    with torch.no_grad():
        logits = undisturbed(**batch).logits
    learned = float((logits.argmax(1) == batch["labels"]).double().mean())
    print(f"training accuracy {learned:.3f}")
    assert learned > 0.6  # 30 steps; one in five is chance
    save(undisturbed, tmp_path / "out", plan=pruning.pruner.plan())
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, logits)
    with pytest.raises(TrainError, match="resume with the same number of epochs"):
        train(tmp_path / "b", max_steps=40)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(512, 10)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x).flatten(1))
        return out


def test_a_cnn_under_lightning(tmp_path: Path) -> None:
    pytest.importorskip("lightning")
    import lightning.pytorch as lightning

    x, y = load_digits(return_X_y=True)
    images = torch.tensor(x / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    labels = torch.tensor(y, dtype=torch.int64)
    test = TensorBatches(images[:300], labels[:300], batch_size=300)

    class Module(lightning.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> Tensor:
            return F.cross_entropy(self.net(batch[0]), batch[1])

        def configure_optimizers(self) -> Any:
            optimizer = torch.optim.SGD(self.net.parameters(), lr=0.05, momentum=0.9)
            return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)]

    def fit(
        folder: Path, at: int | None = None, resume: Path | None = None, **changes: Any
    ) -> tuple[Any, Any]:
        class Kill(lightning.Callback):  # type: ignore[misc,name-defined]
            def on_train_batch_end(self, trainer: Any, *others: Any) -> None:
                if trainer.global_step == at:
                    raise Killed

        module = Module()
        pruning = lightning_callback(
            images[:1], settings=GradualSettings("macs=35%", cuts=4), submodule="net"
        )
        trainer = lightning.Trainer(
            max_epochs=4,
            callbacks=[
                pruning,
                Kill(),
                lightning.callbacks.ModelCheckpoint(folder, save_top_k=-1, filename="{epoch}"),
            ],
            accelerator="cpu",
            devices=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            **changes,
        )
        # the order is the same in every epoch: Lightning does not restore generators
        loader = DataLoader(TensorDataset(images[300:], labels[300:]), batch_size=64)
        trainer.fit(module, loader, ckpt_path=str(resume) if resume else None)
        return module.net, pruning.pruner

    undisturbed, pruner = fit(tmp_path / "a")
    print(f"accuracy {accuracy(undisturbed, test):.3f}, {pruner.log().rows[-1]}")
    assert accuracy(undisturbed, test) > 0.93
    assert pruner.log().rows[-1].remaining <= 0.35
    assert pruner.samples == 4 * (len(images) - 300)
    with pytest.raises(Killed):
        fit(tmp_path / "b", at=30)
    saved = tmp_path / "b" / "epoch=0.ckpt"
    again, theirs = fit(tmp_path / "b", resume=saved)
    assert same(again, undisturbed)
    assert theirs.log() == pruner.log()
    at_once = cut(Net(), pruner.plan())
    assert [p.shape for p in at_once.parameters()] == [p.shape for p in again.parameters()]
    accumulated, _ = fit(tmp_path / "c", accumulate_grad_batches=2)
    assert accuracy(accumulated, test) > 0.85
    with pytest.raises(TrainError, match="resume with the same max_epochs"):
        fit(tmp_path / "b", resume=saved, accumulate_grad_batches=2)
