"""Which parameters are scales of normalisations: told from the graph's calls, for `norm_scale`.

A scale is a parameter of one dimension, and no bias, of a module whose class is named a norm.
"""

from __future__ import annotations

from dataclasses import replace

from secateur.core.errors import ScoreError
from secateur.core.graph import Graph

_BIASES = frozenset({"bias", "beta"})


def only_scales(graph: Graph) -> Graph:
    """The graph with groups that have no members but scales of normalisations; groups without any
    are left out. Raises: ScoreError when none is left."""
    scales = scales_of(graph)
    groups = [
        replace(group, members=tuple(m for m in group.members if m.tensor in scales))
        for group in graph.free
    ]
    kept = tuple(group for group in groups if group.members)
    if not kept:
        raise ScoreError(
            "criterion 'norm_scale' looks at the scales of normalisations, and no group of this "
            "model that may lose units goes through one; use a criterion such as 'l2'"
        )
    return replace(graph, groups=kept)


def scales_of(graph: Graph) -> frozenset[str]:
    """Names of parameters that scale what a normalisation made."""
    norms = {call.module for call in graph.calls if "norm" in call.kind.lower()}
    return frozenset(
        name
        for name, tensor in graph.tensors.items()
        if tensor.is_parameter and len(tensor.dims) == 1
        for module, _, own in (name.rpartition("."),)
        if module in norms and own not in _BIASES
    )
