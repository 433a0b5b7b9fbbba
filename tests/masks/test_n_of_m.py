from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_references import kept_n_of_m

from secateur.masks.keys import Source
from secateur.masks.n_of_m import keep_n_of_m
from secateur.masks.patterns import parse


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.sampled_from([(2, 4), (1, 4), (4, 8), (1, 2), (3, 5), (7, 16)]),
    st.integers(0, 1),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from((torch.float32, torch.bfloat16)),
)
def test_n_of_m_is_a_sort_of_every_group(
    seed: int, pattern: tuple[int, int], dim: int, groups: int, tied: bool, dtype: torch.dtype
) -> None:
    keep, of = pattern
    shape = [3, 2, 2]
    shape.insert(dim, groups * of)
    weights = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    if tied:
        weights = weights.round()
    if seed % 2:
        weights = weights.to(memory_format=torch.channels_last)
    source = Source("w", weights, dtype)
    ours = keep_n_of_m(source, input_dim=dim, keep=keep, of=of)
    naive = kept_n_of_m(weights.abs().float(), input_dim=dim, keep=keep, of=of)
    assert torch.equal(ours, naive)
    assert (ours.movedim(dim, -1).unflatten(-1, (-1, of)).sum(-1) == keep).all()


def test_by_hand() -> None:
    weights = torch.tensor([[1.0, -3.0, 2.0, 0.0, 5.0, 5.0, 5.0, 5.0]])
    kept = keep_n_of_m(Source("w", weights, torch.float32), input_dim=1, keep=2, of=4)
    assert kept.int().tolist() == [[0, 1, 1, 0, 0, 0, 1, 1]]


@pytest.mark.parametrize(
    "text", ["2:2", "0:4", "4:2", "2:4:8", "block:0x1", "block:4", "", "unstructure", "300:400"]
)
def test_other_patterns_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        parse(text)
