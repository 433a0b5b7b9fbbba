from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_references import kept_by_sorting
from torch import Tensor

from secateur.core.errors import ScoreError
from secateur.masks import selection
from secateur.masks.keys import Source, common_dtype, flat, is_dense, key_of
from secateur.masks.selection import below, kept_by, smallest

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def selected(tensors: list[Tensor], count: int, *, signed: bool = False) -> list[Tensor]:
    dtype = common_dtype([t.dtype for t in tensors])
    sources = [Source("w", t.to(dtype) if signed else t, dtype, signed=signed) for t in tensors]
    limit = smallest(sources, count)
    return [kept_by(source, limit, k) for k, source in enumerate(sources)]


def check(tensors: list[Tensor], count: int, *, signed: bool = False) -> None:
    scores = tensors if signed else [t.abs() for t in tensors]
    for ours, naive in zip(
        selected(tensors, count, signed=signed), kept_by_sorting(scores, count), strict=True
    ):
        assert torch.equal(ours, naive)


@pytest.fixture
def small_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of a few thousand go the way of those of millions: sample, bracket, one pass."""
    monkeypatch.setattr(selection, "SAMPLE", 64)
    monkeypatch.setattr(selection, "CHUNK", 256)
    monkeypatch.setattr(selection, "_BLOCK", 1000)
    monkeypatch.setattr(selection, "DEVIATIONS", 2.0)


tensors = st.builds(
    lambda seed, rows, dtype, kind, layout: make(seed, rows, dtype, kind, layout),
    st.integers(0, 2**31),
    st.integers(1, 40),
    st.sampled_from(DTYPES),
    st.sampled_from(("normal", "few values", "equal", "zeros", "tiny")),
    st.sampled_from(("plain", "transposed", "channels_last", "strided")),
)


def make(seed: int, rows: int, dtype: torch.dtype, kind: str, layout: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, 6, 4, 5, generator=generator)
    if kind == "few values":
        values = values.round()
    elif kind in ("equal", "zeros"):
        values = torch.full_like(values, -0.0 if kind == "zeros" else -1.5)
    elif kind == "tiny":  # subnormal numbers
        values *= 1e-42
    values = values.to(dtype)
    if layout == "transposed":
        return values.transpose(0, 1)
    if layout == "channels_last":
        return values.to(memory_format=torch.channels_last)
    return values[:, ::2] if layout == "strided" else values


@settings(max_examples=60, deadline=None)
@given(st.lists(tensors, min_size=1, max_size=4), st.floats(0, 1), st.booleans())
def test_selection_is_a_stable_sort(parts: list[Tensor], share: float, signed: bool) -> None:
    check(parts, round(share * sum(t.numel() for t in parts)), signed=signed)


@settings(max_examples=60, deadline=None)
@given(parts=st.lists(tensors, min_size=1, max_size=4), share=st.floats(0, 1), signed=st.booleans())
def test_selection_by_a_sample_is_a_stable_sort(
    parts: list[Tensor], share: float, signed: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        small_sample.__wrapped__(patch)  # type: ignore[attr-defined]
        check(parts, round(share * sum(t.numel() for t in parts)), signed=signed)


@pytest.mark.usefixtures("small_sample")
@pytest.mark.parametrize("atom", [0.0, 0.5, 10.0])
def test_a_value_that_most_weights_have(atom: float) -> None:
    weights = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    weights[torch.randperm(4000, generator=torch.Generator().manual_seed(1))[:3000]] = atom
    for count in (0, 1, 500, 1500, 2999, 3000, 3500, 4000):
        check([weights[:1000], weights[1000:]], count)


@pytest.mark.usefixtures("small_sample")
def test_a_sample_that_misleads_costs_another_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def misled(sources: list[Source], total: int, seed: int) -> np.ndarray:
        calls.append(seed)
        return np.full(64, 7, dtype=np.int32)  # no weight is so small

    monkeypatch.setattr(selection, "_sampled", misled)
    check([torch.randn(5000, generator=torch.Generator().manual_seed(0))], 2500)
    assert len(calls) > 1


def test_a_million_weights_in_two_threads() -> None:
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(700, 1000, generator=generator), torch.randn(300_001, generator=generator)]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for share in (0.001, 0.8):
            check(parts, round(share * 1_000_001))
    finally:
        torch.set_num_threads(threads)


def test_ties_go_by_tensor_then_flat_index() -> None:
    ones = torch.ones(2, 2).t()
    first, second = selected([ones, torch.ones(2, 2)], 6)
    assert not first.any()
    assert second.tolist() == [[False, False], [True, True]]
    (kept,) = selected([torch.ones(2, 3).t().contiguous().t()], 2)  # columns first in memory
    assert kept.tolist() == [[False, False, True], [True, True, True]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("signed", [False, True])
def test_what_has_no_rank_is_refused(dtype: torch.dtype, value: float, signed: bool) -> None:
    weights = torch.ones(100, dtype=dtype)
    weights[70] = value
    source = Source("fc.weight", weights, dtype, signed=signed)
    for count in (0, 50):
        with pytest.raises(ScoreError, match=r"fc\.weight holds NaN or infinite"):
            smallest([source], count)


@pytest.mark.parametrize("signed", [False, True])
def test_what_was_masked_goes_first(signed: bool) -> None:
    weights, kept = torch.tensor([0.0, -9.0, 1.0, 9.0]), torch.tensor([True, True, True, False])
    source = Source("w", weights, torch.float32, signed=signed, kept=kept)
    after = [kept_by(source, smallest([source], count), 0).tolist() for count in (1, 2)]
    second = [True, False, True, False] if signed else [False, True, True, False]
    assert after == [[True, True, True, False], second]


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_threshold_is_compared_as_torch_does(dtype: torch.dtype) -> None:
    weights = torch.tensor([0.1, -0.1, 0.2, 0.0999, 0.1001, 0.0], dtype=dtype)
    source = Source("w", weights, dtype)
    kept = kept_by(source, below([source], key_of(0.1, dtype)), 0)
    assert torch.equal(kept, weights.abs() > 0.1)


def test_types_are_compared_in_the_widest() -> None:
    parts = [torch.tensor([1.0, 1.00390625]).bfloat16(), torch.tensor([1.001, 0.5]).half()]
    check(parts, 2)
    check([*parts, torch.tensor([0.7, 1.0000001], dtype=torch.float64)], 3)


def test_flat_copies_nothing_that_has_no_gaps() -> None:
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert flat(image).data_ptr() == image.data_ptr()
    assert is_dense(image.transpose(1, 3)) and not is_dense(image[:, ::2])
    assert not is_dense(torch.ones(3, 1).expand(3, 4))
    mask = image > 0
    assert torch.equal(flat(mask.contiguous(), like=image), flat(image) > 0)
