"""Masks of models of which each rank, here a thread, holds views of parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from thread_world import ThreadWorld, boxes, on_ranks
from torch import Tensor, nn

from secateur.core.errors import EngineError
from secateur.core.shards import Part, Shard
from secateur.masks import MaskPlan, ShardedMaskPlan, mask_, mask_shards_
from secateur.masks.digest import combined, mask_sums
from secateur.masks.sharded_agreement import ones

STEP = 4  # edges of shards lie at multiples of it


def net(seed: int, *, ties: bool) -> nn.Sequential:
    torch.manual_seed(seed)
    found = nn.Sequential(nn.Conv2d(8, 12, 3), nn.Linear(16, 24), nn.Linear(24, 9))
    if ties:
        with torch.no_grad():
            for parameter in found.parameters():
                parameter.mul_(6).round_()
    return found


def view(tensor: Tensor, box: Shard) -> Tensor:
    for dim, (start, size) in enumerate(zip(box.start, box.size, strict=True)):
        tensor = tensor.detach().narrow(dim, start, size)
    return tensor


def splitter(ranks: int, dims: dict[str, int]):  # type: ignore[no-untyped-def]
    """Parts of whole parameters, as views: of each the dimension that is split in steps."""

    def part(name: str, tensor: Tensor, rank: int) -> Part:
        shape, dim = tuple(tensor.shape), dims[name]
        blocks = -(-shape[dim] // STEP)
        edges = [min(shape[dim], STEP * (k * blocks // ranks)) for k in range(ranks)]
        splits = [(0, n) for n in shape]
        splits[dim] = (*edges, shape[dim])
        box = boxes(shape, splits)[rank]
        return Part(view(tensor, box), box)

    return part


class Views(ThreadWorld):
    """Of a parameter each rank has a view, known by its memory."""

    def local(self, tensor: Tensor) -> Tensor:
        return self.found[tensor.data_ptr()]

    def parts(self, tensors):  # type: ignore[no-untyped-def]
        found = super().parts(tensors)
        self.found = {tensors[name].data_ptr(): part.tensor for name, part in found.items()}
        return found


def masked(
    model: nn.Sequential, ranks: int, dims: dict[str, int], *hows: dict[str, object]
) -> tuple[list[list[ShardedMaskPlan]], list[nn.Sequential]]:
    """Plans and models of each rank when masked in one way after another."""
    models = []
    for _ in range(ranks):
        one = net(0, ties=False)
        one.load_state_dict(model.state_dict())
        models.append(one)

    def work(world: ThreadWorld) -> list[ShardedMaskPlan]:
        views = Views(world.rank, world.meeting, world.parts_of)
        return [mask_shards_(models[world.rank], views, **how) for how in hows]  # type: ignore[arg-type]

    return on_ranks(ranks, work, splitter(ranks, dims))[0], models


def check(plan: MaskPlan, plans: list[ShardedMaskPlan]) -> None:
    for ours in plans:
        assert ours.digest == plan.digest
        assert ours.layers == plan.layers
        assert ours.settings == plan.settings
        for name, mask in ours.kept.items():
            shard = mask.shard
            expected = np.packbits(view(plan.kept[name], shard).reshape(-1).numpy())
            assert np.array_equal(mask.bits, expected)


NAMES = ("0.weight", "1.weight", "2.weight")
hows = st.sampled_from(
    [
        {"sparsity": 0.5},
        {"sparsity": 0.9, "scope": "layer"},
        {"sparsity": {"2.weight": 0.5, "0.weight": 0.1}},
        {"pattern": "2:4"},
        {"pattern": "block:4x1", "sparsity": 0.5},
        {"pattern": "block:2x4", "sparsity": 0.7, "criterion": "l2"},
        {"pattern": "block:4x2", "sparsity": 0.7, "scope": "layer"},
        {"threshold": 0.1},
        {"sparsity": 0.5, "skip": ("1",)},
    ]
)


@settings(max_examples=25)
@given(
    how=hows,
    ranks=st.integers(1, 5),
    dims=st.tuples(*[st.integers(0, 1)] * 3),
    seed=st.integers(0, 99),
    ties=st.booleans(),
)
def test_every_way_of_masking_gives_the_masks_of_one_process(
    how: dict[str, object], ranks: int, dims: tuple[int, int, int], seed: int, ties: bool
) -> None:
    model = net(seed, ties=ties)
    plans, models = masked(model, ranks, dict(zip(NAMES, dims, strict=True)), how)
    plan = mask_(model, **how)  # type: ignore[arg-type]
    check(plan, [own[-1] for own in plans])
    for rank, (one, (ours,)) in enumerate(zip(models, plans, strict=True)):
        for name, mask in ours.kept.items():
            own = view(one.get_parameter(name), mask.shard)
            zero = ~view(plan.kept[name], mask.shard)
            assert not own[zero].any(), (rank, name)
            weights = view(model.get_submodule(name[0]).weight, mask.shard)  # type: ignore[arg-type]
            assert torch.equal(own[~zero], weights[~zero])


@pytest.mark.parametrize("second", [{"sparsity": 0.8}, {"sparsity": 0.8, "pattern": "block:4x1"}])
def test_what_is_masked_stays_masked(second: dict[str, object]) -> None:
    model, first = net(1, ties=True), {"sparsity": 0.5, "skip": ("1",)}
    plans, _ = masked(model, 3, dict.fromkeys(NAMES, 0), first, second)
    check(mask_(model, **first), [own[0] for own in plans])  # type: ignore[arg-type]
    check(mask_(model, **second), [own[1] for own in plans])  # type: ignore[arg-type]


def test_masks_only_grow() -> None:
    with pytest.raises(ValueError, match=r"the model is masked to 79\.99% already, more than"):
        masked(net(0, ties=False), 2, dict.fromkeys(NAMES, 0), {"sparsity": 0.8}, {"sparsity": 0.5})


def test_parts_that_are_no_whole() -> None:
    def part(name: str, tensor: Tensor, rank: int) -> Part:
        return Part(tensor.detach(), Shard.whole(tuple(tensor.shape)))  # on both ranks

    def work(world: ThreadWorld) -> None:
        mask_shards_(net(0, ties=False), world, sparsity=0.5)

    with pytest.raises(EngineError, match=r"hold 1,728 of the 864 weights of 0\.weight"):
        on_ranks(2, work, part)


@settings(max_examples=40)
@given(st.data())
def test_hashes_add_up_however_a_mask_is_split(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    kept = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=math.prod(shape), max_size=math.prod(shape)))
    ).reshape(shape)
    splits = []
    for extent in shape:
        inner = data.draw(st.lists(st.integers(0, extent), max_size=2))
        splits.append((0, *sorted(inner), extent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secateur.masks.digest._COLUMNS", data.draw(st.sampled_from([3, 1 << 14])))
        patch.setattr("secateur.masks.digest._ELEMENTS", 8)
        total = sum(
            mask_sums(np.packbits(view(kept, box).reshape(-1).numpy()), box)
            for box in boxes(shape, splits)
        )
    whole = mask_sums(np.packbits(kept.reshape(-1).numpy()), Shard.whole(shape))
    assert combined(total) == combined(whole)  # type: ignore[arg-type]
    flat = kept.clone().reshape(-1)
    flat[data.draw(st.integers(0, len(flat) - 1))] ^= True
    other = mask_sums(np.packbits(flat.numpy()), Shard.whole(shape))
    assert combined(other) != combined(whole)


@given(st.lists(st.booleans(), max_size=40))
def test_ones(bits: list[bool]) -> None:
    assert ones(np.packbits(np.array(bits, dtype=bool)), len(bits)) == sum(bits)
