"""What a trace says to the simulator: units, weights, buffers, and activations as autograd has."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from secateur.engines.simulator.graph_workload import workload_of
from secateur.engines.simulator.loaded import workload_of_model
from secateur.graph import trace


class Attention(nn.Module):
    """A small encoder block, pre-norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.after = nn.LayerNorm(16), nn.LayerNorm(16)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down = nn.Linear(16, 40), nn.Linear(40, 16)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        qkv = self.qkv(self.norm(x)).view(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(*qkv.unbind(0))
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, 16))
        return x + self.down(nn.functional.gelu(self.up(self.after(x))))


def convolutions() -> tuple[nn.Module, Tensor]:
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)]
    layers += [nn.Conv2d(8, 8, 3, groups=8), nn.Hardswish(inplace=True), nn.MaxPool2d(2)]
    layers += [nn.Conv2d(8, 4, 1), nn.Sigmoid(), nn.Flatten(), nn.Linear(4 * 36, 5)]
    return nn.Sequential(*layers), torch.randn(2, 3, 16, 16)


def attention() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Linear(16, 16), Attention(), Attention()), torch.randn(2, 6, 16)


def kept_by_autograd(model: nn.Module, inputs: Tensor) -> int:
    """Bytes of the storages that a forward saves, without the model's own."""
    own = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = model.train()(inputs)
    assert out.requires_grad
    sizes = {key: tensor.untyped_storage().nbytes() for key, tensor in held.items()}
    return sum(size for key, size in sizes.items() if key not in own)


@pytest.mark.parametrize("made", [convolutions, attention])
def test_activations_are_those_that_autograd_keeps(
    made: Callable[[], tuple[nn.Module, Tensor]],
) -> None:
    model, inputs = made()
    work = workload_of(trace(model.eval(), inputs))
    predicted = sum(unit.kept_elements * 4 + unit.kept_bytes for unit, _ in work.units)
    assert predicted == kept_by_autograd(model, inputs)


def test_frozen_weights_keep_less() -> None:
    model, inputs = attention()
    every = workload_of(trace(model, inputs))
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    assert sum(u.kept_elements + u.kept_bytes for u, _ in every.units) > 0
    frozen = workload_of(trace(model, inputs))
    assert sum(u.kept_elements + u.kept_bytes for u, _ in frozen.units) == 0


def test_units_hold_every_weight_and_operator_once() -> None:
    model, inputs = attention()
    graph = trace(model, inputs)
    work = workload_of(graph, name="encoder", units=("1", "2"))
    assert [unit.name for unit, _ in work.units] == ["1", "2", "the rest"]
    assert work.elements == sum(p.numel() for p in model.parameters())
    assert work.macs == workload_of(graph).macs
    assert work.units[-1][0].macs == 2 * 6 * 16 * 16
    assert work.samples == 2


def test_buffers_and_channels_of_batch_norm() -> None:
    model, inputs = convolutions()
    work = workload_of(trace(model, inputs))
    assert work.buffers == 2 * 8 * 4 + 8
    assert work.units[-1][0].batch_norms == (8,)


def test_a_tensor_parallel_rank_holds_its_share_and_adds_up_what_it_made() -> None:
    model, inputs = attention()
    whole = workload_of_model(model, inputs)
    half = workload_of_model(model, inputs, tp=2)
    blocks = [unit for unit, _ in half.units if unit.forward_reduced]
    entries = 2 * 6 * 16  # the batch, the length, the width
    sums = [n for unit in blocks for n in unit.forward_reduced]
    copies = [n for unit, _ in half.units for n in unit.backward_reduced]
    assert sums == copies == [entries] * 2  # the MLP of two blocks
    mlp = 2 * 2 * 16 * 40
    assert half.macs == whole.macs - 12 * mlp // 2
    assert half.elements == whole.elements - mlp // 2 - 2 * 40 // 2
    parts = (sum(u.kept_elements for u, _ in work.units) for work in (half, whole))
    assert 0.4 < next(parts) / next(parts) < 0.95


def test_units_do_not_nest() -> None:
    model, inputs = attention()
    with pytest.raises(ValueError, match=r"'1\.up' lies within unit '1'"):
        workload_of(trace(model, inputs), units=("1", "1.up"))
