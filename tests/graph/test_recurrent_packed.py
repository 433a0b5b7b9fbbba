"""Packed sequences: the widths of a recurrent layer are free, the positions are not."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import secateur as sc


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Linear(6, 10)
        self.layer = nn.GRU(10, 12, batch_first=True, bidirectional=True)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(self.into(x), lengths, batch_first=True)
        out, _ = pad_packed_sequence(self.layer(packed)[0], batch_first=True)
        return self.head(out)


def test_widths_of_a_packed_layer_are_cut_and_equal_the_masked_ones() -> None:
    model, inputs = Packed().double(), (torch.randn(2, 5, 6).double(), torch.tensor([5, 3]))
    graph = sc.trace(model, inputs)
    assert not graph.unknown_ops
    assert sorted(group.size for group in graph.free if not group.structural) == [10, 12]
    plan = sc.plan(graph, sc.score(graph, model, criterion="random", seed=0), keep=0.5)
    small = sc.cut(model, plan)
    assert small.layer.hidden_size == 6 and small.layer.input_size == 5
    proof = sc.verify(model, small, plan, inputs, graph=graph)
    assert proof.groups_checked == 2 and proof.max_rel_error < 1e-12
