"""A rank's share of a batch: the parts add up to the whole, whatever the loss is a mean over."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from secateur.engines.shares import Weighing, share_of
from secateur.train.together import weighing_of


def parts(batch: object, size: int, weighing: Weighing) -> list[tuple[object, float]]:
    shares = [share_of(batch, rank=rank, size=size, weighing=weighing) for rank in range(size)]
    return [(share.batch, share.weight) for share in shares]


@given(rows=st.integers(1, 40), size=st.integers(1, 6))
def test_the_parts_are_the_batch_in_its_order_and_weigh_one(rows: int, size: int) -> None:
    x = torch.arange(rows)
    shares = [share_of((x, x), rank=r, size=size, weighing=Weighing()) for r in range(size)]
    assert sum(share.weight for share in shares) == pytest.approx(1)
    if rows >= size:
        assert torch.cat([share.batch[0] for share in shares]).tolist() == x.tolist()
    else:  # some rank would have no row
        assert all(torch.equal(share.batch[0], x) and not share.split for share in shares)


def losses(loss_fn: nn.Module, logits: Tensor, labels: Tensor, size: int) -> tuple[float, float]:
    """Of the whole batch, and of the weighted parts."""
    weighing = weighing_of(loss_fn, nn.Identity())
    found = sum(
        weight * float(loss_fn(*batch))  # type: ignore[misc]
        for batch, weight in parts((logits, labels), size, weighing)
    )
    return float(loss_fn(logits, labels)), found


@pytest.mark.parametrize(
    "loss_fn",
    [
        nn.CrossEntropyLoss(),
        nn.CrossEntropyLoss(ignore_index=2),
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5], dtype=torch.float64)),
        nn.CrossEntropyLoss(reduction="sum"),
    ],
    ids=["mean", "ignored", "class weights", "sum"],
)
@pytest.mark.parametrize("size", [2, 3])
def test_weighted_losses_of_the_parts_are_the_loss_of_the_whole(
    loss_fn: nn.Module, size: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(11, 3, dtype=torch.float64, generator=generator)
    labels = torch.randint(0, 3, (11,), generator=generator)
    labels[:4] = torch.tensor([2, 2, 2, 0])
    whole, together = losses(loss_fn, logits, labels, size)
    assert together == pytest.approx(whole, rel=1e-12)


def test_labels_of_a_causal_model_weigh_as_it_counts_them() -> None:
    labels = torch.tensor([[5, 1, 2, 3], [6, 4, -100, -100], [7, -100, -100, -100]])
    logits = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0)).double()

    def causal(rows: slice) -> Tensor:
        return F.cross_entropy(logits[rows, :-1].flatten(0, 1), labels[rows, 1:].flatten())

    batch = {"input_ids": labels.clamp_min(0), "labels": labels}
    weighing = Weighing(shifted=True)
    first, second = (share_of(batch, rank=r, size=2, weighing=weighing) for r in (0, 1))
    together = first.weight * causal(slice(0, 1)) + second.weight * causal(slice(1, 3))
    assert float(together) == pytest.approx(float(causal(slice(0, 3))), rel=1e-12)


def test_a_part_without_any_label_that_counts_makes_every_rank_take_the_whole() -> None:
    batch = (torch.zeros(4, 2), torch.tensor([0, 1, -100, -100]))
    shares = [share_of(batch, rank=r, size=2, weighing=Weighing()) for r in (0, 1)]
    assert [(len(share.batch[0]), share.weight, share.split) for share in shares] == [
        (4, 0.5, False),
        (4, 0.5, False),
    ]


def test_what_does_not_belong_to_the_rows_is_given_whole() -> None:
    batch = {"x": torch.zeros(4, 2), "scale": torch.tensor(3.0), "grid": torch.zeros(7), "n": 5}
    share = share_of(batch, rank=1, size=2, weighing=Weighing())
    assert share.batch["x"].shape == (2, 2)
    assert share.batch["scale"].shape == () and share.batch["grid"].shape == (7,)
    assert share.batch["n"] == 5
