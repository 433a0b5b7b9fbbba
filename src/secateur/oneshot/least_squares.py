"""Ridge regression from sums: data come batch by batch, and only second moments are kept.

``W = argmin |X W - Y|^2 + ridge |W - W0|^2``: where the data say nothing the weights stay what they
were. How strong the ridge is, the batches that were held back decide.

G groups with a problem of their own, N positions, F features, M outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGES = (1e-6, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Parts of the mean of the moments' diagonal, the strongest last."""


@dataclass
class Sums:
    """``X^T X``, ``X^T Y`` and ``|Y|^2`` over some batches, float64."""

    xx_GFF: Tensor
    xy_GFM: Tensor
    yy: float = 0.0

    @classmethod
    def zeros(cls, groups: int, features: int, outputs: int) -> Sums:
        """Nothing seen yet."""
        return cls(
            torch.zeros(groups, features, features, dtype=torch.float64),
            torch.zeros(groups, features, outputs, dtype=torch.float64),
        )

    def add(self, x_GNF: Tensor, y_GNM: Tensor) -> None:
        """Rows of inputs and of the outputs that are wanted."""
        self.xx_GFF += (x_GNF.transpose(1, 2) @ x_GNF).cpu()
        self.xy_GFM += (x_GNF.transpose(1, 2) @ y_GNM).cpu()
        self.yy += float(y_GNM.square().sum(dtype=torch.float64))

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.xx_GFF + other.xx_GFF, self.xy_GFM + other.xy_GFM, self.yy + other.yy)

    def error(self, weight_GFM: Tensor) -> float:
        """``|X W - Y|^2``."""
        own = (weight_GFM * (self.xx_GFF @ weight_GFM - 2 * self.xy_GFM)).sum()
        return max(float(own) + self.yy, 0.0)


def fitted(sums: Sums, start_GFM: Tensor, *, held: Sums | None = None, free: int = 0) -> Tensor:
    """The weights that fit best: chosen on `held` among `RIDGES` and no change at all, then fitted
    to both.

    free: the last features that no ridge holds, such as the constant of a bias.

    >>> x, y = torch.tensor([[[1.0], [2.0]]]), torch.tensor([[[3.0], [6.0]]])
    >>> sums = Sums.zeros(1, 1, 1)
    >>> sums.add(x, y)
    >>> round(float(fitted(sums, torch.zeros(1, 1, 1))), 1)
    3.0
    """
    start_GFM = start_GFM.double()
    if held is None:
        return _solved(sums, start_GFM, RIDGES[2], free)
    best, least = None, held.error(start_GFM)
    for ridge in RIDGES:
        error = held.error(_solved(sums, start_GFM, ridge, free))
        if error < least:
            best, least = ridge, error
    return start_GFM if best is None else _solved(sums + held, start_GFM, best, free)


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
