"""Small models that need no package besides torch, and those that do, by name.

Each maker gives a model in float64 and its example inputs. Every vector parameter is made random,
so that a bias added twice or a norm's weight without its gradient shows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Made = tuple[nn.Module, Any]


class Squeezed(nn.Module):
    """An inverted residual block with squeeze-and-excitation, as in EfficientNet."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, inner, 1)
        self.norm = nn.BatchNorm2d(inner)
        self.depthwise = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.reduce = nn.Conv2d(inner, 4, 1)
        self.excite = nn.Conv2d(4, inner, 1)
        self.project = nn.Conv2d(inner, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.silu(self.depthwise(F.silu(self.norm(self.expand(x)))))
        gate = self.excite(F.relu(self.reduce(y.mean((2, 3), keepdim=True))))
        return x + self.project(y * torch.sigmoid(gate))


class Residual(nn.Module):
    """conv1-bn1-conv2-bn2 beside a shortcut, then squeeze-and-excitation, then classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(8, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.bn2 = nn.Conv2d(12, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.squeezed = Squeezed(8, 16)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(x + self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        return self.head(self.squeezed(x).mean((2, 3)))


class Attention(nn.Module):
    """Grouped queries with a norm over each head's width, whose weight all heads share, and a
    relative bias; no module is called for the output projection."""

    def __init__(self, width: int, kv: int, repeat: int) -> None:
        super().__init__()
        self.kv, self.repeat, self.width = kv, repeat, width // (kv * repeat)
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, kv * self.width)
        self.v = nn.Linear(width, kv * self.width)
        self.q_norm = nn.LayerNorm(self.width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q_norm(self.q(x).view(*x.shape[:2], -1, self.width)).transpose(1, 2)
        k = self.k(x).view(*x.shape[:2], -1, self.width).transpose(1, 2)
        v = self.v(x).view(*x.shape[:2], -1, self.width).transpose(1, 2)
        k, v = (t[:, :, None].expand(-1, -1, self.repeat, -1, -1).flatten(1, 2) for t in (k, v))
        made = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return F.linear(made, self.out.weight, self.out.bias)


class Decoder(nn.Module):
    """Attention and a gated MLP whose halves are one projection."""

    def __init__(self, kv: int, repeat: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 24)
        self.before = nn.LayerNorm(24)
        self.attention = Attention(24, kv, repeat)
        self.norm = nn.LayerNorm(24)
        self.gate_up = nn.Linear(24, 40)
        self.down = nn.Linear(20, 24)
        self.head = nn.Linear(24, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        x = x + self.attention(self.before(x))
        gate, up = self.gate_up(self.norm(x)).chunk(2, -1)
        return self.head(x + self.down(F.silu(gate) * up))


def plain_chain() -> Made:
    """Convolutions one after another: every second width can be shared out."""
    widths = [3, 6, 8, 6, 4]
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, padding=1), nn.ReLU(inplace=True)]
    return _ready(nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 16, 3))), _images(3, 3, 4, 4)


def residual() -> Made:
    return _ready(Residual()), _images(3, 3, 6, 6)


def decoder() -> Made:
    return _ready(Decoder(kv=4, repeat=2)), torch.randint(0, 11, (2, 5))


def one_kv_head() -> Made:
    return _ready(Decoder(kv=1, repeat=4)), torch.randint(0, 11, (2, 5))


def encoder() -> Made:
    layer = nn.TransformerEncoderLayer(16, 4, 32, dropout=0.0, batch_first=True)
    return _ready(nn.TransformerEncoder(layer, 2)), _images(2, 5, 16)


def bert() -> Made:
    tf = pytest.importorskip("transformers")
    config = tf.BertConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        vocab_size=30, max_position_embeddings=16, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    tokens = torch.randint(0, 30, (2, 6))
    return _ready(tf.BertModel(config)), {"input_ids": tokens, "attention_mask": (tokens > 3) * 1}


def llama() -> Made:
    tf = pytest.importorskip("transformers")
    config = tf.LlamaConfig(
        hidden_size=36, num_hidden_layers=2, num_attention_heads=9, num_key_value_heads=3,
        intermediate_size=40, vocab_size=30, use_cache=False,
    )  # fmt: skip
    return _ready(tf.LlamaForCausalLM(config)), {"input_ids": torch.randint(0, 30, (2, 6))}


def gpt2() -> Made:
    tf = pytest.importorskip("transformers")
    config = tf.GPT2Config(
        n_embd=24, n_layer=1, n_head=4, vocab_size=30, n_positions=16, use_cache=False,
        attn_pdrop=0.0, embd_pdrop=0.0, resid_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return _ready(tf.GPT2LMHeadModel(config)), {"input_ids": torch.randint(0, 30, (2, 6))}


def of_timm(name: str, **options: Any) -> Callable[[], Made]:
    """A maker of a model of timm's."""

    def make() -> Made:
        timm = pytest.importorskip("timm")
        return _ready(timm.create_model(name, **options)), _images(2, 3, 64, 64)

    return make


def _images(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def _ready(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(0.5 + 0.3 * torch.randn(parameter.shape, generator=generator))
    for module in model.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]
    return model.double()


SMALL: dict[str, Callable[[], Made]] = {
    maker.__name__: maker
    for maker in (plain_chain, residual, decoder, one_kv_head, encoder, bert, llama, gpt2)
}
LARGE: dict[str, Callable[[], Made]] = {
    "resnet18": of_timm("resnet18"),
    "resnet50": of_timm("resnet50"),
    "vit": of_timm("vit_tiny_patch16_224", img_size=64, depth=3),
    "convnext": of_timm("convnext_atto"),
    "efficientnet": of_timm("efficientnet_b0", drop_rate=0.0),
    "swin": of_timm("swin_tiny_patch4_window7_224", img_size=64, window_size=2),
}
