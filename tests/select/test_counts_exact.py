"""The count solver against brute force, on random small systems and on one large one."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from systems import equal, make_graph, op

from secateur.core.dims import Axis, Concat, Dim
from secateur.core.expressions import (
    COMPARISONS,
    OPERATORS,
    Binary,
    Expression,
    Field,
    Relation,
    Size,
    leaves,
)
from secateur.core.graph import Graph
from secateur.select.counts import Solution, solve_counts


def size_of(dim: Dim, counts: Mapping[int, int]) -> int:
    size = 1
    for factor in dim:
        if isinstance(factor, Axis):
            size *= counts.get(factor.index, factor.size)
        else:
            size *= sum(size_of(part, counts) for part in factor.parts)
    return size


def evaluate(
    expression: Expression, counts: Mapping[int, int], fields: Mapping[Field, int]
) -> int | None:
    """The library's `evaluate` written again: independent of it, and fast without type checks."""
    if isinstance(expression, int):
        return expression
    if isinstance(expression, Size):
        return size_of(expression.dim, counts)
    if isinstance(expression, Field):
        return fields.get(expression)
    left = evaluate(expression.left, counts, fields)
    right = evaluate(expression.right, counts, fields)
    if left is None or right is None or (expression.op in ("floordiv", "mod") and not right):
        return None
    return OPERATORS[expression.op](left, right)


def holds(relation: Relation, counts: Mapping[int, int], fields: Mapping[Field, int]) -> bool:
    left, right = evaluate(relation.left, counts, fields), evaluate(relation.right, counts, fields)
    assert left is not None and right is not None
    return COMPARISONS[relation.op](left, right) is relation.holds


Distance = tuple[int, float]
"""Groups that stay whole although fewer units were wanted, then the sum of the deviations."""


def distance(
    graph: Graph,
    wanted: Mapping[int, int],
    counts: Mapping[int, int],
    weights: Mapping[int, float] | None = None,
) -> Distance:
    sizes = {group.axis.index: group.size for group in graph.groups}
    whole = sum(n < sizes[a] == counts.get(a, sizes[a]) for a, n in wanted.items())
    heaviest = max((1.0, *(weights or {}).values()))
    off = {a: abs(counts.get(a, sizes[a]) - n) / sizes[a] for a, n in wanted.items()}
    return whole, sum((weights or {}).get(a, 1.0) / heaviest * value for a, value in off.items())


def nearly(best: Distance) -> Distance:
    return pytest.approx(best, abs=1e-6)


def divisions(expression: Expression) -> Iterator[Binary]:
    if isinstance(expression, Binary):
        if expression.op == "floordiv":
            yield expression
        yield from divisions(expression.left)
        yield from divisions(expression.right)


def exactness(graph: Graph) -> list[Relation]:
    """What is understood: a quotient without remainder stays one."""
    rules = []
    for relation in graph.relations:
        for division in (*divisions(relation.left), *divisions(relation.right)):
            rest = op("mod", division.left, division.right)
            if evaluate(rest, {}, graph.fields) == 0:
                rules.append(equal(rest, 0))
    return rules


def brute_force(
    graph: Graph,
    wanted: Mapping[int, int],
    allowed: Mapping[int, Sequence[int]] | None = None,
    weights: Mapping[int, float] | None = None,
) -> Distance | None:
    """Least distance over every assignment of counts and of fields up to a generous value."""
    sizes = {group.axis.index: group.size for group in graph.groups}
    relations = [*graph.relations, *exactness(graph)]
    free = sorted(wanted)
    domains = [list((allowed or {}).get(a, range(1, sizes[a] + 1))) for a in free]
    scored = [
        (distance(graph, wanted, dict(zip(free, values, strict=True)), weights), values)
        for values in itertools.product(*domains)
    ]
    for cost, values in sorted(scored):
        if _completes(relations, graph, dict(zip(free, values, strict=True)), {}):
            return cost
    return None


def _completes(
    relations: Sequence[Relation], graph: Graph, counts: Mapping[int, int], fields: dict[Field, int]
) -> bool:
    """Whether some values of the remaining fields make every relation true (backtracking)."""
    open_ = []
    for relation in relations:
        left, right = (evaluate(s, counts, fields) for s in (relation.left, relation.right))
        if left is not None and right is not None:
            if COMPARISONS[relation.op](left, right) is not relation.holds:
                return False
        else:
            open_.append(relation)
    for relation in open_:
        for side, other in ((relation.left, relation.right), (relation.right, relation.left)):
            value = evaluate(other, counts, fields)
            direct = isinstance(side, Field) and side not in fields and value is not None
            if relation.op == "eq" and relation.holds and direct:
                return _completes(relations, graph, counts, {**fields, side: value})
    unknown = [f for r in open_ for f in (*leaves(r.left), *leaves(r.right)) if f not in fields]
    unknown = [f for f in unknown if isinstance(f, Field)]
    if not unknown:
        return not open_  # a division by zero
    return any(
        _completes(relations, graph, counts, {**fields, unknown[0]: value})
        for value in range(1, 13)  # no size is larger
    )


def check(graph: Graph, wanted: Mapping[int, int], solution: Solution) -> None:
    """Every relation holds, counts are in range, and each difference has a note."""
    sizes = {group.axis.index: group.size for group in graph.groups}
    assert all(1 <= n < sizes[a] for a, n in solution.counts.items())
    assert solution.counts.keys() <= wanted.keys()
    for relation in (*graph.relations, *exactness(graph)):
        assert holds(relation, solution.counts, solution.fields), relation
    differs = {a for a, n in wanted.items() if solution.counts.get(a, sizes[a]) != n}
    assert solution.notes.keys() == differs


def draw_system(data: st.DataObject) -> tuple[Graph, dict[int, int], dict[int, list[int]]]:
    """A small graph that mixes every kind of relation; all hold at full size by construction."""
    draw = data.draw
    kinds = ("product", "equal", "proportion", "sum", "three", "field", "predicate", "two")
    axes: list[Axis] = []
    relations: list[Relation] = []
    fields: dict[Field, int] = {}

    def axis(size: int) -> Axis:
        fitting = [a for a in axes if a.size == size]
        if fitting and draw(st.booleans()):
            return draw(st.sampled_from(fitting))
        axes.append(Axis(len(axes), size))
        return axes[-1]

    def attribute(value: int) -> Field:
        name = Field("m", f"f{len(fields)}")
        fields[name] = value
        return name

    for kind in draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=3)):
        small, other = draw(st.integers(2, 3)), draw(st.integers(2, 3))
        a, b = axis(small), axis(other)
        if kind == "product":
            c = axis(small * other)
            width, heads = attribute(c.size), attribute(a.size)
            relations += [
                equal(width, Size((c,))),
                equal(heads, Size((a,))),
                equal(op("floordiv", width, heads), Size((b,))),
            ]
        elif kind == "equal":
            shared = attribute(small)
            relations += [equal(shared, Size((a,))), equal(shared, Size((axis(small),)))]
        elif kind == "proportion":
            left, right = op("mul", other, Size((a,))), op("mul", small, Size((b,)))
            relations.append(equal(left, right))
        elif kind == "sum":
            whole: Dim = (Concat(((a,), (b,))),)
            relations.append(equal(Size(whole), Size((axis(small + other),))))
        elif kind == "three":
            qkv = attribute(3 * small)
            relations += [
                equal(op("mul", 3, Size((a,))), qkv),
                equal(op("mod", qkv, small), 0),
            ]
        elif kind == "field":
            ratio = attribute(small)
            product = op("mul", ratio, Size((b,)))
            relations.append(equal(product, Size((axis(small * other),))))
        elif kind == "two":
            first, second = attribute(small), attribute(other)
            relations.append(equal(op("mul", first, second), Size((axis(small * other),))))
        else:
            comparison = draw(st.sampled_from(sorted(COMPARISONS)))
            bound = draw(st.integers(1, 4))
            truth = COMPARISONS[comparison](small, bound)
            relations.append(Relation(comparison, Size((a,)), bound, truth))
    graph = make_graph(axes[:5], relations, fields)
    known = range(min(len(axes), 5))
    wanted = {i: draw(st.integers(1, axes[i].size)) for i in known if draw(st.integers(0, 5))}
    allowed = {
        i: sorted({axes[i].size, *draw(st.lists(st.integers(1, axes[i].size), max_size=3))})
        for i in wanted
        if draw(st.integers(0, 3)) == 0
    }
    return graph, wanted, allowed


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_distance_is_that_of_brute_force(data: st.DataObject) -> None:
    graph, wanted, allowed = draw_system(data)
    # the solver rounds weights to 1/4096 of the heaviest
    weights = {i: data.draw(st.sampled_from([0.25, 0.5, 1.0, 4.0])) for i in wanted}
    solution = solve_counts(graph, wanted, allowed=allowed, weights=weights)
    check(graph, wanted, solution)
    best = brute_force(graph, wanted, allowed, weights)
    assert best is not None
    assert distance(graph, wanted, solution.counts, weights) == nearly(best)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(4, 7))
def test_long_sums_are_exact(seed: int, terms: int) -> None:
    rng = random.Random(seed)
    parts = [Axis(i, rng.randint(2, 4)) for i in range(terms)]
    total = Axis(terms, sum(a.size for a in parts))
    graph = make_graph(
        (*parts, total), [equal(Size((Concat(tuple((a,) for a in parts)),)), Size((total,)))]
    )
    wanted = {group.axis.index: rng.randint(1, group.size) for group in graph.groups}
    solution = solve_counts(graph, wanted)
    check(graph, wanted, solution)
    # moving one unit of the widest part, or of the total, is cheapest: compare with brute force
    best = min(
        distance(graph, wanted, dict(enumerate((*values, sum(values)))))
        for values in itertools.product(*(range(1, a.size + 1) for a in parts))
    )
    assert distance(graph, wanted, solution.counts) == nearly(best)


def test_forty_blocks_on_one_residual() -> None:
    rng = random.Random(3)
    width = Axis(0, 768)
    axes, relations, fields = [width], [], {}
    for layer in range(40):
        heads, head_dim = Axis(2 * layer + 1, 12), Axis(2 * layer + 2, 64)
        embed, count = Field(f"{layer}", "embed_dim"), Field(f"{layer}", "num_heads")
        fields |= {embed: 768, count: 12}
        axes += [heads, head_dim]
        relations += [
            equal(embed, Size((width,))),
            equal(count, Size((heads,))),
            equal(op("floordiv", embed, count), Size((head_dim,))),
            equal(Size((width,)), Size((heads, head_dim))),
        ]
    graph = make_graph(axes, relations, fields)
    wanted = {a.index: rng.randint(1, a.size) for a in axes}
    solution = solve_counts(graph, wanted)
    check(graph, wanted, solution)
    # enumerate the shared width by hand; every block then chooses for itself
    best = (len(axes), 0.0)
    for value in range(1, 769):
        block = make_graph(axes[:3], ())
        total = distance(make_graph([width], ()), {0: wanted[0]}, {0: value})
        for layer in range(40):
            asked = {1: wanted[2 * layer + 1], 2: wanted[2 * layer + 2]}
            products = [{1: n, 2: value // n} for n in range(1, 13) if value % n == 0]
            cheapest = min(
                (distance(block, asked, counts) for counts in products if counts[2] <= 64),
                default=(len(axes), 0.0),
            )
            total = total[0] + cheapest[0], total[1] + cheapest[1]
        best = min(best, total)
    assert distance(graph, wanted, solution.counts) == nearly(best)
