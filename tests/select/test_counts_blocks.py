"""The count solver against brute force on the block structure of real models, in small.

Residual widths shared by attention blocks, stages tied to each other, chains of equal chunks with
single units between them, divisibility. What must hold is written down twice: as relations for the
solver, and as plain arithmetic on the counts for the enumeration.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from systems import equal, make_graph, op

from secateur.core.dims import Axis, Concat
from secateur.core.expressions import Expression, Field, Relation, Size
from secateur.select.counts import CountSolver

Law = Callable[[Sequence[int]], bool]


@dataclass
class System:
    rng: random.Random
    axes: list[Axis] = field(default_factory=list)
    relations: list[Relation] = field(default_factory=list)
    fields: dict[Field, int] = field(default_factory=dict)
    laws: list[Law] = field(default_factory=list)

    def axis(self, size: int) -> Axis:
        self.axes.append(Axis(len(self.axes), size))
        return self.axes[-1]

    def attribute(self, value: int) -> Field:
        name = Field("module", f"attribute_{len(self.fields)}")
        self.fields[name] = value
        return name

    def say(self, left: Expression, right: Expression, law: Law) -> None:
        self.relations.append(equal(left, right))
        self.laws.append(law)


def size(axis: Axis) -> Size:
    return Size((axis,))


def add_stage(system: System) -> Axis:
    """A residual width, and blocks in which it is heads times head_dim."""
    n_heads, n_dims = system.rng.randint(2, 4), system.rng.randint(2, 4)
    width = system.axis(n_heads * n_dims)
    for _ in range(system.rng.randint(1, 2)):
        heads, dims = system.axis(n_heads), system.axis(n_dims)
        embed, count = system.attribute(width.size), system.attribute(n_heads)
        system.relations += [equal(embed, size(width)), equal(count, size(heads))]
        w, h, d = width.index, heads.index, dims.index
        system.say(
            op("floordiv", embed, count), size(dims), lambda n, w=w, h=h, d=d: n[w] == n[h] * n[d]
        )
    return width


def add_two_stages(system: System) -> None:
    """The second one's width is twice the first's, up to a constant."""
    first, second = add_stage(system), add_stage(system)
    shift = 2 * first.size - second.size
    a, b = first.index, second.index
    twice = op("mul", 2, size(first))
    system.say(twice, op("add", size(second), shift), lambda n: 2 * n[a] == n[b] + shift)


def add_chunks(system: System) -> None:
    """Parts of one dimension, each as wide as all before it and a few single units."""
    single = system.rng.randint(0, 1)
    parts = [system.axis(system.rng.randint(2, 4))]
    for _ in range(system.rng.randint(1, 3)):
        before = tuple(part.index for part in parts)
        total = sum(part.size for part in parts) + single
        if total > 9:
            break
        joined = Size((Concat((*((part,) for part in parts), *((),) * single)),))
        last = system.axis(total)
        system.say(
            op("mul", 2, joined),
            op("mul", 2, size(last)),
            lambda n, before=before, k=last.index: sum(n[i] for i in before) + single == n[k],
        )
        parts.append(last)


def add_groups(system: System) -> None:
    """A width that a number of groups divides, where it did before."""
    groups = system.rng.randint(2, 3)
    width = system.axis(system.rng.randint(groups, 9))
    share = system.axis(width.size // groups)
    exact = width.size % groups == 0
    w, s = width.index, share.index
    system.say(
        op("floordiv", size(width), groups),
        size(share),
        lambda n: n[w] // groups == n[s] and not (exact and n[w] % groups),
    )


KINDS = (add_stage, add_two_stages, add_chunks, add_groups)


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.lists(st.sampled_from(KINDS), min_size=1, max_size=2))
def test_the_optimum_of_an_enumeration(seed: int, kinds: list[Callable[[System], object]]) -> None:
    system = System(random.Random(seed))
    for add in kinds:
        add(system)
    draw, axes = system.rng.randint, system.axes
    wanted = [draw(1, axis.size) for axis in axes]
    weights = [2.0 ** draw(0, 4) for _ in axes]  # the solver rounds to 1/4096 of the heaviest
    insist = draw(0, 3) > 0
    domains = [
        sorted({axis.size, draw(1, axis.size)}) if draw(0, 5) == 0 else range(1, axis.size + 1)
        for axis in axes
    ]

    def cost(counts: Sequence[int]) -> tuple[int, float, int]:
        """Groups whole against the wish, weighted distance, units removed."""
        rows = list(zip(counts, wanted, axes, weights, strict=True))
        whole = sum(n == axis.size > want for n, want, axis, _ in rows) if insist else 0
        off = sum(w / max(weights) * abs(n - want) / axis.size for n, want, axis, w in rows)
        return whole, round(off, 9), sum(axis.size - n for n, _, axis, _ in rows)

    if len(axes) > 6:  # an enumeration has to end
        wanted[6:], domains[6:] = [a.size for a in axes[6:]], [[a.size] for a in axes[6:]]
    best = min(
        cost(counts)
        for counts in itertools.product(*domains)
        if all(law(counts) for law in system.laws)
    )
    solver = CountSolver(
        make_graph(axes, system.relations, system.fields),
        range(len(axes)),
        allowed={axis.index: list(domains[axis.index]) for axis in axes},
        weights=dict(enumerate(weights)),
        insist=insist,
    )
    found = solver.solve(dict(enumerate(wanted))).counts
    counts = [found.get(axis.index, axis.size) for axis in axes]
    assert all(law(counts) for law in system.laws)
    assert cost(counts) == best
