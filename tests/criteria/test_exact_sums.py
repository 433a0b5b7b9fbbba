"""Sums that do not know in which order, or on which rank, their numbers came."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from worlds import on_ranks

from secateur.core.errors import ScoreError
from secateur.criteria import exact_sums
from secateur.criteria.exact_sums import ExactSum, ExactSums

NUMBERS = st.floats(
    allow_nan=False, allow_infinity=False, width=64, min_value=-1e250, max_value=1e250
)


def total(tensors: list[Tensor], bins: int | None = None) -> Tensor:
    one = ExactSum(bins)
    for tensor in tensors:
        one.add_(tensor)
    return one.value()


@settings(max_examples=30, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=12), st.randoms())
def test_order_changes_no_bit(numbers, random) -> None:
    shuffled = list(numbers)
    random.shuffle(shuffled)
    found = [
        total([torch.tensor([x, -x / 3], dtype=torch.float64) for x in order])
        for order in (numbers, shuffled)
    ]
    assert torch.equal(*found)
    # what is dropped is less than 2**-88 of the largest, for each number
    exact, most = sum(map(Fraction, numbers)), max(map(abs, numbers))
    error = abs(Fraction(found[0][0].item()) - exact)
    assert error <= Fraction(most) * len(numbers) / 2**88 + abs(exact) / 2**52 + Fraction(1e-290)


def test_float32_is_summed_as_exactly_as_float64_would() -> None:
    torch.manual_seed(0)
    tensors = [torch.randn(300, 7) * 10.0 ** (k - 8) for k in range(16)]
    expected = torch.stack([tensor.double() for tensor in tensors]).sum(0)
    torch.testing.assert_close(total(tensors), expected, rtol=0, atol=1e8 * 16 / 2**44)
    # of numbers of one size every bit is there
    alike = [torch.randint(1 << 20, (50,)).float() for _ in range(16)]
    assert torch.equal(total(alike), torch.stack(alike).double().sum(0))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_ranks_get_the_bits_of_one_process(dtype) -> None:
    torch.manual_seed(1)
    tensors = [(torch.randn(70, 3) * 10.0 ** (2 * (k % 5) - 4)).to(dtype) for k in range(11)]
    alone = total(tensors)

    for size in (2, 3, 8):

        def work(world, size=size):
            sums = ExactSums()
            # rank 1 has none, and the last one most
            own = [t for k, t in enumerate(tensors) if min(k, size - 1) * (k != 1) == world.rank]
            for tensor in own:
                sums.add_({"x": tensor})
            sums.reduce_(world, what="a test")
            return sums.rounds, *sums.take("x")

        for rounds, value, count in on_ranks(size, work):
            assert rounds == count == len(tensors)
            assert torch.equal(value, alone)


def test_means_take_the_layout_and_type_of_what_they_are_like() -> None:
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    sums = ExactSums({"w": weight})
    first, other = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    sums.add_({"w": first})
    sums.add_({"w": other})
    mean = sums.means()["w"]
    assert mean.stride() == weight.stride() and mean.dtype is torch.float32
    torch.testing.assert_close(mean, (first + other) / 2)
    assert list(sums) == []


def test_complex_tensors_are_left_out() -> None:
    sums = ExactSums()
    sums.add_({"c": torch.ones(2, dtype=torch.complex64), "x": torch.ones(2)})
    assert {name: mean.tolist() for name, mean in sums.means().items()} == {"x": [1.0, 1.0]}


def test_large_tensors_go_in_chunks(monkeypatch) -> None:
    tensors = [torch.randn(1000, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    whole = total(tensors)
    monkeypatch.setattr(exact_sums, "_CHUNK", 7)
    assert torch.equal(total(tensors), whole)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_stays_so(value) -> None:
    assert total([torch.ones(3), torch.tensor([1.0, value, 2.0])]).isnan().all()

    def work(world):
        sums = ExactSums()
        sums.add_({"x": torch.tensor([value if world.rank else 1.0])})
        sums.reduce_(world, what="a test")
        return sums.take("x")[0]

    assert all(bool(found.isnan()) for found in on_ranks(2, work))


def test_zeros_and_nothing() -> None:
    assert torch.equal(total([torch.zeros(2, 3)]), torch.zeros(2, 3, dtype=torch.float64))
    assert total([torch.zeros(0, 3)]).shape == (0, 3)
    assert total([torch.tensor(2.0), torch.tensor(3.0)]).item() == 5.0
    assert total([torch.tensor([5e-324, 1e-300], dtype=torch.float64)]).tolist() == [0.0, 0.0]


def test_no_overflow_is_silent(monkeypatch) -> None:
    monkeypatch.setattr(exact_sums, "_MOST", 3)

    def work(world):
        sums = ExactSums()
        for _ in range(2):
            sums.add_({"x": torch.ones(1)})
        sums.reduce_(world, what="a test")

    for error in on_ranks(2, work):
        assert isinstance(error, ScoreError) and "pass fewer batches" in str(error)
    with pytest.raises(ScoreError, match="pass fewer batches"):
        total([torch.ones(1)] * 4)
