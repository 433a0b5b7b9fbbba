"""Which modules are residual blocks, which of them can go, and why the others cannot."""

from __future__ import annotations

import pytest
import torch
from stacks import Collecting, Deep, InPlace, Layer, Numbered, Passing, Recurring, Stack, rows
from torch import Tensor, nn

from secateur import trace
from secateur.core.blocks import Block


def blocks(model: nn.Module) -> dict[str, Block]:
    return {block.path: block for block in trace(model.eval(), rows()).blocks}


def test_each_layer_of_a_list_is_a_block() -> None:
    found = blocks(Stack())
    assert list(found) == [f"layers.{k}" for k in range(4)]
    first = found["layers.0"]
    assert (first.kind, first.container, first.pinned, first.identity) == (
        "Layer", "layers", None, False,
    )  # fmt: skip
    # norm 2 * 8, up 8 * 10 + 10, down 10 * 8 + 8; products of six rows
    assert (first.params, first.macs) == (16 + 90 + 88, 6 * (8 * 10 + 10 * 8))


def test_a_block_that_writes_into_its_input_is_found() -> None:
    assert [block.pinned for block in blocks(Stack(InPlace)).values()].count(None) >= 1


def test_stages_are_stacks_and_not_blocks() -> None:
    found = blocks(Deep())
    assert list(found) == [
        "stages.0.0", "stages.0.1", "stages.0.2", "stages.2.one", "stages.2.two", "single",
    ]  # fmt: skip
    assert found["single"].container is None and found["single"].identity
    assert not found["stages.2.one"].identity


def test_a_list_whose_elements_are_picked_by_number_keeps_its_length() -> None:
    assert all(block.identity and block.pinned is None for block in blocks(Numbered()).values())


def test_outputs_read_in_several_places_keep_their_number() -> None:
    found = blocks(Collecting())
    assert [block.identity for block in found.values()] == [True, True, True, False]


def test_what_others_read_pins_a_block() -> None:
    found = blocks(Passing())
    assert found["layers.0"].pinned == "layers.1 reads what it computes besides the stream"
    assert [block.pinned for block in found.values()][1:] == [None] * 3


def test_a_block_that_runs_twice_is_pinned() -> None:
    (block,) = blocks(Recurring()).values()
    assert block.pinned == "it runs 2 times in one forward"


class Branch(nn.Module):
    """A residual connection outside of the module: without it there is another network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(5, 8), nn.Sequential(nn.Linear(8, 8)), None
        self.norm = nn.Sequential(nn.LayerNorm(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.norm(x + self.branch(x))


def test_a_branch_and_a_norm_are_no_blocks() -> None:
    assert blocks(Branch()) == {}


def test_post_norm_and_scaled_sums_are_residual() -> None:
    class PostNorm(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return self.norm(torch.addcmul(x, self.down(self.up(x)), self.norm.bias + 2))

    assert len(blocks(Stack(PostNorm))) == 4


@pytest.mark.parametrize("make", [Stack, Numbered, Deep])
def test_shares_of_blocks_add_up(make: type[nn.Module]) -> None:
    model = make()
    named = dict(model.named_parameters())
    for path, block in blocks(model).items():
        own = [p.numel() for name, p in named.items() if name.startswith(f"{path}.")]
        assert block.params == sum(own)
