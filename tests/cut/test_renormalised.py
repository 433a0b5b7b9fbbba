"""Operators over a cut axis that the corrected reference computes over what is kept."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from secateur.core.proof import Proof
from secateur.criteria.score import score
from secateur.cut import cut, verify
from secateur.graph import trace
from secateur.select.plan import plan


class Standardised(nn.Module):
    """Weights standardised by a batch norm that takes its own statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 8, 3)
        self.gain, self.head = nn.Parameter(torch.rand(8) + 0.5), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x).relu()
        flat = self.b.weight.reshape(1, len(self.b.weight), -1)
        weight = F.batch_norm(flat, None, None, weight=self.gain, training=True, momentum=0.0)
        x = F.conv2d(x, weight.reshape_as(self.b.weight), self.b.bias).relu()
        return self.head(x.mean((2, 3)))


class Registers(nn.Module):
    """Learned tokens beside those of the input, in one attention."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Parameter(torch.randn(1, 5, 8)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.tokens.expand(len(x), -1, -1), x], 1)[:, None]
        x = F.scaled_dot_product_attention(x, x, x)[:, 0]
        return self.head(x[:, self.tokens.shape[1] :])


def proof_of(model: nn.Module, x: Tensor) -> Proof:
    graph = trace(model, x)
    made = plan(graph, score(graph, model, criterion="random", seed=0), keep=0.5)
    assert made.inexact
    return verify(model, cut(model, made), made, x, graph=graph, dtype=torch.float64)


def test_standardised_weights_are_compared_by_numbers() -> None:
    proof = proof_of(Standardised(), torch.randn(2, 3, 8, 8))
    assert proof.groups_shape_only == 0 and len(proof.corrected) >= 1
    assert proof.max_rel_error < 1e-12


def test_learned_positions_of_an_attention_are_compared_by_numbers() -> None:
    proof = proof_of(Registers(), torch.randn(2, 3, 8))
    assert proof.groups_shape_only == 0 and "softmax over it" in str(proof.corrected["tokens[1]"])
    assert proof.max_rel_error < 1e-12
