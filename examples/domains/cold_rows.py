"""A recommender without the vectors of users and films that are seldom rated; RMSE in stars.

`python examples/domains/cold_rows.py` needs what `recommender.py` needs. Weight decay has made the
vectors that few ratings move small, so rows chosen by `l2` are the cold ones. Masks of whole rows
choose them (`secateur.mask_` with blocks of one row); then the tables are really packed: all rows
that went share one of zeros, and for such users and films the mean and the biases are left. Finding
the place of a row takes a moment, so that this alone saves memory and no time; columns go as well.
"""

from __future__ import annotations

import copy

import torch
from comparison import Cut, Domain, compare, show
from recommender import WIDTH, MatrixFactorisation
from recommender import domain as whole
from torch import Tensor, nn

import secateur as sc
from secateur.cost.counted import cost

SPARSITY = 0.6
"""Of the rows of both tables together."""
BUDGET = "params=25%"
"""For the columns of what is left."""
TABLES = ("user", "movie")


class HotRows(nn.Module):
    """An embedding that keeps some rows; the numbers of all others lead to a row of zeros."""

    def __init__(self, table_NW: Tensor) -> None:
        super().__init__()
        kept = table_NW.count_nonzero(1) > 0
        rows = nn.Embedding(int(kept.sum()) + 1, table_NW.shape[1], padding_idx=0)
        with torch.no_grad():
            rows.weight[0] = 0
            rows.weight[1:] = table_NW[kept]
        self.rows = rows
        self.place: Tensor
        self.register_buffer("place", kept.cumsum(0) * kept)

    def forward(self, numbers: Tensor) -> Tensor:
        found: Tensor = self.rows(self.place[numbers])
        return found


def masked(model: MatrixFactorisation, criterion: str, seed: int) -> MatrixFactorisation:
    """A copy with zeros for the rows that the criterion finds worth least."""
    twin = copy.deepcopy(model)
    sc.mask_(
        twin, sparsity=SPARSITY, criterion=criterion, pattern=f"block:1x{WIDTH}", seed=seed,
        skip=["bias_user", "bias_movie"],
    )  # fmt: skip
    sc.fold_(twin)
    return twin


def packed(model: MatrixFactorisation) -> MatrixFactorisation:
    """A copy whose tables hold no rows of zeros."""
    small = copy.deepcopy(model)
    for name in TABLES:
        setattr(small, name, HotRows(getattr(small, name).weight.detach()))
    return small


def domain(name: str = "cold rows", seed: int = 0) -> Domain:
    """The factorisation of `recommender.py`, with two fifths of its rows and fewer columns."""
    dense = whole(seed=seed)
    assert isinstance(dense.model, MatrixFactorisation)

    def cut(criterion: str, seed: int) -> Cut:
        twin = masked(dense.model, criterion, seed)
        small = packed(twin)
        with torch.no_grad():
            error = float((small(dense.example) - twin(dense.example)).abs().max())
        narrow = sc.prune(small, dense.example, budget=BUDGET, criterion=criterion, seed=seed)
        assert narrow.proof is not None
        error = max(error, narrow.proof.max_abs_error)
        return Cut(narrow.model, cost(sc.trace(dense.model, dense.example)), narrow.after, error)

    return Domain(
        name, "RMSE", dense.model, dense.example, dense.train, dense.measure,
        f"rows={1 - SPARSITY:.0%}, {BUDGET}", "l2", cut=cut,
    )  # fmt: skip


if __name__ == "__main__":
    show(compare(domain()))
