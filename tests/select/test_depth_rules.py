"""Rules that name groups of blocks that go: they count for what is left."""

from __future__ import annotations

import pytest
import torch
from stacks import Stack, rows

import secateur as sc


def test_patterns_of_removed_blocks_are_dropped() -> None:
    model = Stack().eval()
    graph = sc.trace(model, rows())
    shares = {group.id: 0.5 for group in graph.free}
    gone = {id for id in shares if id.startswith("layers.1.")}
    assert gone
    scores = dict(sc.score(graph, model))
    scores |= {f"layers.{k}": torch.tensor([float(k != 1)]) for k in range(4)}
    found = sc.plan(
        graph, scores, blocks=1, keep=shares, equal=["layers.1.*", "layers.*"], keep_modules="stem"
    )
    assert found.removed == ("layers.1",)
    assert found.keep and not gone & found.keep.keys()
    assert dict(found.settings["keep"]) == shares  # what was asked for, not what was left of it
    with pytest.raises(ValueError, match=r"keep: 'layers\.9' matches nothing"):
        sc.plan(graph, scores, blocks=1, keep={"layers.9": 0.5})
