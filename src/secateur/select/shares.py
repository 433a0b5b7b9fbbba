"""Shares of single groups: `keep` as a mapping from ids or glob patterns to what stays of each.

A group's own id counts before any pattern, and of several patterns the last that matches. Groups
that nothing matches stay whole. The share is a wish, as a share for all groups is: where the
model's own arithmetic excludes it, the count solver takes the nearest count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from secateur.core.graph import Graph
from secateur.select.matching import groups_made_by

ROUNDING = 1e-9
"""0.7 * 10 is a little more than 7 in floating point, and is meant to be 7."""


def shares(graph: Graph, keep: Mapping[str, float]) -> dict[str, float]:
    """The share that stays of each group that the mapping speaks of, by the group's id.

    Raises: ValueError for a pattern that matches no group.
    """
    ids = {group.id for group in graph.groups}
    found: dict[str, float] = {}
    for pattern, share in keep.items():
        if pattern not in ids:
            matched = groups_made_by(graph, pattern, option="keep")
            found.update(dict.fromkeys((group.id for group in matched), share))
    return found | {id: share for id, share in keep.items() if id in ids}


def count_of(share: float, size: int) -> int:
    """The share of a group in units, rounded up.

    >>> count_of(0.7, 10), count_of(0.01, 10)
    (7, 1)
    """
    return max(1, math.ceil(size * share - ROUNDING))
