"""Options of a plan that are shares of the dense model, told of a model that was cut already.

A plan's `keep` is a share of the units that there are. A gradual pruning cuts many times, and its
user speaks of the dense model: half of a group stays, however often it is cut.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.core.graph import Graph
from secateur.select.shares import count_of, shares


def of_dense(options: Mapping[str, Any], dense: Graph, now: Graph) -> dict[str, Any]:
    """The options for the model of `now`, with `keep` and `sparsity` meant of that of `dense`.

    Selection is global unless the options say otherwise.
    """
    found = {"selector": "global", **options}
    keep = found.get("keep")
    if "sparsity" in found:
        keep = 1 - found.pop("sparsity")
    if keep is None:
        return found
    left = {group.id: group.size for group in now.free}
    sizes = {group.id: group.size for group in dense.free}
    if isinstance(keep, Mapping):
        found["keep"] = {
            id: min(1.0, count_of(share, sizes[id]) / left[id])
            for id, share in shares(dense, keep).items()
            if id in left and id in sizes
        }
    else:
        found["keep"] = min(1.0, keep * sum(sizes.values()) / sum(left.values()))
    return found
