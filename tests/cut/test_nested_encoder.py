"""torch's encoder takes its nested path for even numbers of heads only; a cut may leave three."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import secateur as sc


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(36, 6, 20, batch_first=True)
        self.into, self.out = nn.Linear(5, 36), nn.Linear(36, 3)
        self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        padding = torch.zeros(x.shape[:2], dtype=torch.bool)
        padding[:, -2:] = True
        return self.out(self.encoder(self.into(x), src_key_padding_mask=padding))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_odd_number_of_heads_runs_with_padding() -> None:
    model, inputs = Padded().eval(), torch.randn(2, 5, 5)
    graph = sc.trace(model, inputs)
    scores = sc.score(graph, model, criterion="random", seed=0)
    plan = sc.plan(graph, scores, keep=0.5)
    small = sc.cut(model, plan)
    assert small.encoder.layers[0].self_attn.num_heads == 3
    with torch.no_grad():
        assert small(inputs).shape == (2, 5, 3)
    proof = sc.verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error < 1e-12
