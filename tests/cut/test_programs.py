"""Thousands of random networks, cut at random: never a wrong result."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from programs import SIDE, STEPS, Program, roughen_

import secateur as sc

Steps = list[tuple[str, int, int, int]]
NUMBER = st.integers(0, 15)
STEP = st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 2), NUMBER, NUMBER)


def check(steps: Steps, seed: int) -> sc.Proof | None:
    """Cut every group to a share of its own and compare; None where nothing could be cut."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = Program(steps).eval()
    roughen_(model, generator)
    inputs = torch.randn(2, SIDE * SIDE, 5, generator=generator)
    graph = sc.trace(model, inputs)
    assert not graph.unknown_ops
    shares = random.Random(seed)
    keep = {group.id: round(shares.uniform(0.2, 0.9), 2) for group in graph.free}
    if not keep:
        return None
    scores = sc.score(graph, model, criterion="random", seed=seed)
    plan = sc.plan(graph, scores, keep=keep, include_structural=seed % 2 == 1)
    small = sc.cut(model, plan)
    proof = sc.verify(model, small, plan, inputs, graph=graph, dtype=torch.float64)
    assert proof.max_rel_error <= 1e-9
    assert proof.groups_shape_only == 0, proof.reasons
    assert sum(p.numel() for p in small.parameters()) == plan.after.params
    if all(len(units) > 1 for units in plan.keep.values()):  # einsum drops dimensions of 1
        again = sc.plan(sc.trace(small, inputs), {}, keep=1.0)
        assert again.before.macs == plan.after.macs
    return proof


@example([("Split", 2, 5, 12), ("Roll", 1, 7, 1), ("Project", 2, 7, 1), ("MapNorm", 1, 7, 1)], 5)
@given(st.lists(STEP, min_size=1, max_size=8), st.integers(0, 5))
@settings(max_examples=60)
def test_random_programs(steps: Steps, seed: int) -> None:
    check(steps, seed)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_thousands_of_random_programs(part: int) -> None:
    """500 programs in each part; what fails is printed, to be made an `example` above."""
    rng, proved, groups = random.Random(part), 0, 0
    for _ in range(500):
        steps = [
            (rng.choice(sorted(STEPS)), rng.randrange(3), rng.randrange(16), rng.randrange(16))
            for _ in range(rng.randint(2, 12))
        ]
        seed = rng.randrange(6)
        try:
            proof = check(steps, seed)
        except Exception as error:
            raise AssertionError(f"steps {steps}, seed {seed}") from error
        proved += proof is not None
        groups += proof.groups_checked if proof else 0
    assert proved > 450 and groups > 1000
