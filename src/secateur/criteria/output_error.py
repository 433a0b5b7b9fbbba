"""Output error: ``I_u = d E / d C``, what the outputs lose for each multiply-accumulate saved.

E is the squared error of the model's outputs on calibration data, relative to their squared size,
when a group loses units and the layers that read it are made up as well as they can; C is the share
of the model's multiply-accumulates that goes with them. Units go in the order that costs these
layers least; E is measured with a few numbers of them gone and follows the layers' own error in
between. Groups compare as they are, so the plan wants ``selector="global", normalise="none"``: one
threshold over all groups then is the least sum of errors at a budget. `oneshot.reconstruct_` makes
up for the cut afterwards.

Source: order and compensation: Kurtic et al., ZipLM: Inference-Aware Structured Pruning of Language
Models, NeurIPS 2023, algorithm 1, arXiv 2302.04089, whose layer-wise errors under a cost model are
those of Frantar and Alistarh, SPDY, ICML 2022, arXiv 2201.13096. Deviations: errors are measured at
the outputs and added up, where SPDY searches for layers' weights; the choice under the cost is by
the lower convex hull of each group's errors (Shoham and Gersho, Efficient bit allocation for an
arbitrary set of quantizers, IEEE TASSP 1988) instead of dynamic programming. A group that no weight
reads, such as the width of queries and keys, has no score and is left whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

NEEDS = frozenset({"weights", "outputs"})


def rise(errors_U: Tensor, saved_U: Tensor) -> Tensor:
    """What each unit's going costs for what it saves, never less than that of units before it: the
    slopes of the lower convex hull of errors over savings.

    >>> rise(torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 2.0, 3.0]))
    tensor([1.0000, 1.0000, 4.0000], dtype=torch.float64)
    """
    points = [(0.0, 0.0), *zip(saved_U.tolist(), errors_U.tolist(), strict=True)]
    hull: list[int] = [0]
    for k in range(1, len(points)):
        if points[k][0] <= points[hull[-1]][0]:
            continue  # it saves nothing
        while len(hull) > 1 and _slope(points, hull[-2], hull[-1]) >= _slope(points, hull[-1], k):
            hull.pop()
        hull.append(k)
    found_U = torch.empty(len(errors_U), dtype=torch.float64)
    for a, b in pairwise(hull):
        found_U[a:b] = _slope(points, a, b)
    found_U[hull[-1] :] = found_U[hull[-1] - 1]
    # what goes later is worth more, be it by a hair
    return found_U * (1 + 1e-9 * torch.arange(len(found_U), dtype=torch.float64))


def _slope(points: Sequence[tuple[float, float]], a: int, b: int) -> float:
    return (points[b][1] - points[a][1]) / (points[b][0] - points[a][0])
