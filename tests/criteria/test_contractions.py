"""Every way in which a layer multiplies with a weight is seen, and unfolds to plain rows."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from secateur.criteria.contractions import Use, watched_uses
from secateur.criteria.input_norms import input_norms
from secateur.criteria.patches import rows_of, weight_of


def uses_of(model: nn.Module, *inputs: Tensor) -> list[Use]:
    found: list[Use] = []
    with torch.no_grad(), watched_uses(model, found.append):
        model(*inputs)
    return found


CONVOLUTIONS = [
    (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 7)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), dilation=(1, 2), groups=2), (2, 4, 6, 6)),
    (nn.Conv2d(4, 8, 5, padding=2, groups=4, bias=False), (3, 4, 5, 5)),
    (nn.Conv1d(3, 5, 4, stride=3, padding=2, dilation=2), (2, 3, 11)),
    (nn.Conv3d(2, 3, 2, stride=(1, 2, 1)), (2, 2, 3, 4, 3)),
    (nn.Linear(4, 3), (2, 5, 4)),
    (nn.Linear(4, 3, bias=False), (7, 4)),
]


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: str(v))
def test_rows_times_weight_is_what_the_layer_makes(layer, shape) -> None:
    (use,) = uses_of(layer.double(), torch.randn(shape, dtype=torch.float64))
    assert use.name == "weight" and use.bias == (None if layer.bias is None else "bias")
    for read_GNF, made_GNM in rows_of(use):
        own = read_GNF @ weight_of(use)
        if layer.bias is not None:
            own = own + layer.bias.reshape(len(own), 1, -1)
        torch.testing.assert_close(own, made_GNM)


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS, ids=lambda v: str(v))
def test_a_part_of_the_positions_is_rows_of_the_whole(layer, shape) -> None:
    (use,) = uses_of(layer.double(), torch.randn(shape, dtype=torch.float64))
    parts = list(rows_of(use, limit=5))
    whole = torch.cat([read for read, _ in rows_of(use)], 1)
    for read_GNF, made_GNM in parts:
        own = read_GNF @ weight_of(use)
        if layer.bias is not None:
            own = own + layer.bias.reshape(len(own), 1, -1)
        torch.testing.assert_close(own, made_GNM)
    assert 0 < sum(read.shape[1] for read, _ in parts) < whole.shape[1]


class Functional(nn.Module):
    """Parts, transposes and stacks of parameters, multiplied without a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.fused = nn.Parameter(torch.randn(6, 4))
        self.experts = nn.Parameter(torch.randn(2, 4, 3))

    def forward(self, x: Tensor) -> Tensor:
        first = nn.functional.linear(x, self.fused[:2])
        second = x @ self.fused[2:].T
        each = torch.bmm(x.expand(2, *x.shape), self.experts)
        chosen = (2 * x) @ self.experts[1]
        return torch.cat([first, second, each[0], chosen], 1)


def test_parts_and_stacks_are_found() -> None:
    x = torch.tensor([[3.0, 0, 1, 0], [4.0, 2, 0, 0]])
    model = Functional()
    norms = input_norms(model, [x])
    expected = torch.tensor([5.0, 2.0, 1.0, 0.0])
    torch.testing.assert_close(norms["fused"], expected.expand(6, 4))
    torch.testing.assert_close(norms["experts"][0], expected[:, None].expand(4, 3))
    # the second expert read x and twice x
    torch.testing.assert_close(norms["experts"][1], 5**0.5 * expected[:, None].expand(4, 3))


def test_recurrent_layers_and_attention_are_seen() -> None:
    x = torch.randn(2, 5, 4)
    lstm = nn.LSTM(4, 3, batch_first=True)
    names = {use.name for use in uses_of(lstm, x)}
    assert names == {"weight_ih_l0", "weight_hh_l0"}
    assert torch.backends.mkldnn.enabled
    attention = nn.MultiheadAttention(4, 2, batch_first=True).eval()
    assert {use.name for use in uses_of(attention, x, x, x)} == {
        "in_proj_weight",
        "out_proj.weight",
    }
