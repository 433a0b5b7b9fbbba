"""Ridge regression from sums: data come batch by batch, and only second moments are kept.

``W = argmin |X W - Y|^2 + ridge |W - W0|^2``: where the data say nothing the weights stay what they
were. How strong the ridge is, the batches that were held back decide.

G groups with a problem of their own, N positions, F features, M outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from secateur.core.world import ALONE, World
from secateur.criteria.divided import divided
from secateur.criteria.exact_sums import ExactSums

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Parts of the mean of the moments' diagonal, the strongest last."""


@dataclass(frozen=True)
class Sums:
    """``X^T X``, ``X^T Y`` and ``|Y|^2`` over some batches, float64."""

    xx_GFF: Tensor
    xy_GFM: Tensor
    yy: float

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.xx_GFF + other.xx_GFF, self.xy_GFM + other.xy_GFM, self.yy + other.yy)

    def error(self, weight_GFM: Tensor) -> float:
        """``|X W - Y|^2``."""
        own = (weight_GFM * (self.xx_GFF @ weight_GFM - 2 * self.xy_GFM)).sum()
        return max(float(own) + self.yy, 0.0)


class Rows:
    """Sums over rows of inputs and outputs, added up batch by batch, the same bits in any order."""

    def __init__(self) -> None:
        self._sums = ExactSums(bins=2)

    def add_(self, x_GNF: Tensor, y_GNM: Tensor, *, held: bool = False) -> None:
        """Rows of inputs and of the outputs that are wanted; held: for choosing the ridge."""
        turned_GFN = x_GNF.transpose(1, 2)
        self._sums.add_one_(f"xx {held}", (turned_GFN @ x_GNF).cpu())
        self._sums.add_one_(f"xy {held}", (turned_GFN @ y_GNM).cpu())
        yy = y_GNM.square().sum(dtype=torch.float64)
        self._sums.add_one_(f"yy {held}", yy.cpu())

    def take(self, *, world: World = ALONE) -> tuple[Sums | None, Sums | None]:
        """Over all ranks: the sums of what is for fitting and of what is held, None where there was
        none; their memory is let go."""
        self._sums.reduce_(world, what="sums for a layer's fit")
        return self._taken(False), self._taken(True)

    def _taken(self, held: bool) -> Sums | None:
        if f"yy {held}" not in self._sums:
            return None
        xx_GFF, xy_GFM, yy = (self._sums.take(f"{of} {held}")[0] for of in ("xx", "xy", "yy"))
        return Sums(xx_GFF, xy_GFM, float(yy))


def fitted(
    sums: Sums, start_GFM: Tensor, *, held: Sums | None = None, free: int = 0, world: World = ALONE
) -> Tensor:
    """The weights that fit best: chosen on `held` among `RIDGES` and no change at all, then fitted
    to both.

    free: the last features that no ridge holds, such as the constant of a bias. world: ranks that
    divide the ridges among them.

    >>> rows = Rows()
    >>> rows.add_(torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [6.0]]]))
    >>> sums, _ = rows.take()
    >>> round(float(fitted(sums, torch.zeros(1, 1, 1))), 1)
    3.0
    """
    start_GFM = start_GFM.double()
    best: float | None = RIDGES[2]
    if held is not None:
        best = _best_ridge(sums, start_GFM, held, free, world)
        sums = sums + held
    if best is None:
        return start_GFM
    (found_GFM,) = divided(
        lambda _: _solved(sums, start_GFM, best, free),
        [start_GFM.shape],
        costs=[1.0],
        world=world,
        what="a layer's weights",
    )
    return found_GFM


def _best_ridge(sums: Sums, start_GFM: Tensor, held: Sums, free: int, world: World) -> float | None:
    """None where no change at all is best."""

    def error_of(k: int) -> Tensor:
        weight_GFM = start_GFM if k == 0 else _solved(sums, start_GFM, RIDGES[k - 1], free)
        return torch.tensor([held.error(weight_GFM)], dtype=torch.float64)

    count = 1 + len(RIDGES)
    costs = [0.1, *(1.0 for _ in RIDGES)]
    errors = divided(error_of, [[1]] * count, costs=costs, world=world, what="errors of ridges")
    least = min(range(count), key=lambda k: float(errors[k]))
    return None if least == 0 else RIDGES[least - 1]


def _solved(sums: Sums, start_GFM: Tensor, ridge: float, free: int) -> Tensor:
    features = sums.xx_GFF.shape[1]
    held = torch.ones(features, dtype=torch.float64)
    held[features - free :] = 0
    # one strength for all groups of a layer: a channel that is never on stays as it was
    scale = float((sums.xx_GFF.diagonal(dim1=1, dim2=2) * held).sum()) / max(
        float(held.sum()) * len(sums.xx_GFF), 1.0
    )
    tiny = torch.finfo(torch.float64).eps * float(sums.xx_GFF.abs().amax()) * features
    damping = held * (ridge * scale) + max(tiny, torch.finfo(torch.float64).tiny)
    damped_GFF = sums.xx_GFF + torch.diag(damping)
    change_GFM = sums.xy_GFM - sums.xx_GFF @ start_GFM
    return start_GFM + torch.cholesky_solve(change_GFM, _factor(damped_GFF))


def _factor(square_GFF: Tensor) -> Tensor:
    """The Cholesky factor; where rounding left a moment without one, of a little more diagonal."""
    own_GFF = torch.diag_embed(square_GFF.diagonal(dim1=1, dim2=2))
    factor_GFF: Tensor
    factor_GFF, failed_G = torch.linalg.cholesky_ex(square_GFF)
    for more in (1e-10, 1e-8, 1e-6, 1e-4):
        if not failed_G.any():
            break
        factor_GFF, failed_G = torch.linalg.cholesky_ex(square_GFF + more * own_GFF)
    return factor_GFF
