"""Why a stage of ShuffleNet keeps its width: its repeated shuffles, enumerated without the solver.

A unit halves its channels, passes the first half on, works on the second, and shuffles: the
channel at place c of the next unit's pair of halves comes from place c // 2. So what is kept of
the first unit's branch, one flag a channel, decides what every later unit keeps: after k shuffles
place c holds channel c >> k. A chunk in half is right only if both halves keep equally many.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch

from secateur.graph.trace import trace
from secateur.select.plan import plan
from secateur.zoo.models import load_model

Runs = list[tuple[int, int]]


def runs_of(width: int, shuffles: int) -> Runs:
    """Channels that no chunk separates, as (start, end): only how many of a run stay matters."""
    ends = {0, width}
    for k in range(shuffles):
        for place in (width // 2, width):
            ends |= {place >> k, -(-place >> k)}
    return list(itertools.pairwise(sorted(ends)))


def places(run: tuple[int, int], kept: int, k: int, low: int, high: int) -> int:
    """Places from `low` to `high` that kept channels of a run fill after k shuffles."""
    start, end = run
    if end - start == 1:  # a chunk may fall within what one channel fills
        return kept * max(0, min(high, end << k) - max(low, start << k))
    return kept << k if low <= start << k < high else 0


def solutions(width: int, shuffles: int, *, least: int) -> Iterator[tuple[int, ...]]:
    """Kept channels of each run, at least `least`, such that every chunk halves what is kept."""
    runs = runs_of(width, shuffles)

    def halves(counts: Sequence[int], k: int) -> tuple[int, int]:
        half = width // 2
        pairs = list(zip(runs, counts, strict=False))
        first = sum(places(run, n, k, 0, half) for run, n in pairs)
        return first, sum(places(run, n, k, half, width) for run, n in pairs)

    def extend(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if len(counts) == len(runs):
            yield counts
            return
        start, end = runs[len(counts)]
        known = [k for k in range(shuffles) if -(-width >> k) == end]
        for kept in range(least, end - start + 1):
            more = (*counts, kept)
            pairs = [halves(more, k) for k in known]
            if all(first == second > 0 for first, second in pairs):
                yield from extend(more)

    yield from extend(())


@pytest.mark.parametrize(("width", "shuffles"), [(8, 2), (10, 2), (12, 3), (14, 3)])
def test_runs_tell_the_same_as_single_channels(width: int, shuffles: int) -> None:
    runs = runs_of(width, shuffles)
    found = set()
    for kept in itertools.product((0, 1), repeat=width):
        pairs = [
            [sum(kept[c >> k] for c in range(a, a + width // 2)) for a in (0, width // 2)]
            for k in range(shuffles)
        ]
        if all(first == second > 0 for first, second in pairs):
            found.add(tuple(sum(kept[start:end]) for start, end in runs))
    assert found == set(solutions(width, shuffles, least=0))


@pytest.mark.parametrize("width", [48, 116, 176, 244])
def test_seven_shuffles_leave_no_choice(width: int) -> None:
    """Stage 3 of x0.5, x1.0, x1.5 and x2.0: eight units, seven of which halve and shuffle."""
    whole = tuple(end - start for start, end in runs_of(width, 7))
    assert list(solutions(width, 7, least=1)) == [whole]
    # with whole runs gone there would be two more widths for 244, none for the others
    narrower = {sum(counts) for counts in solutions(width, 7, least=0)} - {width}
    assert narrower == ({116, 128} if width == 244 else set())


def test_three_shuffles_leave_a_choice_and_the_plan_finds_it() -> None:
    importlib.import_module("torchvision_ops").define_torchvision_ops()
    pytest.importorskip("torchvision")
    loaded = load_model("torchvision:shufflenet_v2_x0_5", image_size=64)
    graph = trace(loaded.model, loaded.example_inputs)
    stages = {
        stage: [g for g in graph.free if g.id.startswith(f"{stage}.0.branch1.2.weight[0]")]
        for stage in ("stage2", "stage3", "stage4")
    }
    scores = {g.id: torch.ones(g.size) for g in graph.free}
    for stage, width in (("stage2", 24), ("stage4", 96)):
        runs = runs_of(width, 3)
        wide = [k for k, (start, end) in enumerate(runs) if end - start > 1]
        assert [group.size for group in stages[stage]] == [runs[k][1] - runs[k][0] for k in wide]
        choices = list(solutions(width, 3, least=1))
        assert len(choices) > 1
        for counts in choices:
            shares = {g.id: counts[k] / g.size for g, k in zip(stages[stage], wide, strict=True)}
            found = plan(graph, scores, keep=shares)
            assert not found.notes
            assert [len(found.keep.get(g.id, range(g.size))) for g in stages[stage]] == [
                counts[k] for k in wide
            ]
    found = plan(graph, scores, keep=dict.fromkeys((g.id for g in stages["stage3"]), 0.5))
    assert not found.keep
    assert len(found.notes) == 1 and "and 3 groups like it" in found.notes[0]
    assert "keeps all" in found.notes[0] and "every solution of its size" in found.notes[0]
    assert "shufflenetv2.py" in found.notes[0]
