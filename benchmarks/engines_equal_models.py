"""Models and data of `engines_equal.py`, named by its recipes.

The CNN is the trained one of `fashion.py`. The two transformers have random weights in the shape of
published ones, and tokens whose frequencies depend on the class; they have no dropout, which no
two numbers of ranks would draw alike.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torchvision_ops
from fashion import fashion_data, train_dense
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from secateur.zoo.data import Data

torchvision_ops.define_torchvision_ops()  # transformers imports torchvision, of whichever build

CLASSES, LENGTH, SAMPLES = 4, 16, 960
VOCABULARY = 4096


class Classifier(nn.Module):
    """A transformer's mean hidden state, and a linear layer."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(width, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [B, classes] of token ids [B, tokens]."""
        logits: Tensor = self.head(self.body(input_ids=ids).last_hidden_state.mean(dim=1))
        return logits


def cnn() -> tuple[nn.Module, Tensor]:
    """The dense CNN of seed 0."""
    return train_dense(0), torch.zeros(16, 1, 28, 28)


def images() -> Data:
    """Fashion-MNIST, with parts of its held-out splits: accuracies are compared, not published."""
    data = fashion_data()
    validation, test = (
        TensorDataset(*(tensor[:count] for tensor in split.tensors))
        for split, count in ((data.validation, 1000), (data.test, 2000))
    )
    return replace(data, validation=validation, test=test)


def minilm() -> tuple[nn.Module, Tensor]:
    """All of MiniLM-L6 but for the size of the vocabulary."""
    from transformers import BertConfig, BertModel

    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    config = BertConfig(
        **shape,
        intermediate_size=1536,
        vocab_size=VOCABULARY,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return _with_head(lambda: BertModel(config, add_pooling_layer=False), 384)


def smollm2() -> tuple[nn.Module, Tensor]:
    """The widths of SmolLM2-135M, three of its thirty layers and a smaller vocabulary."""
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=3,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=VOCABULARY,
        use_cache=False,
    )
    return _with_head(lambda: LlamaModel(config), 576)


def tokens() -> tuple[Tensor, Tensor]:
    """Half of the tokens of a row come from a part of the vocabulary that its class has."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(SAMPLES) % CLASSES
    shape = (SAMPLES, LENGTH)
    common = torch.randint(0, VOCABULARY, shape, generator=generator)
    part = VOCABULARY // CLASSES
    own = labels[:, None] * part + torch.randint(0, part, shape, generator=generator)
    return torch.where(torch.rand(shape, generator=generator) < 0.5, own, common), labels


def _with_head(body: Any, width: int) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return Classifier(body(), width), torch.zeros(4, LENGTH, dtype=torch.int64)
