"""`tensor_parallel` and `uniform_layers`: what they tie, what they refuse, and how they combine."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from secateur.core.dims import Axis, Concat, Dim
from secateur.core.errors import BudgetError
from secateur.core.expressions import Binary, Relation, Size
from secateur.core.graph import Graph, Group, Member, Op, TensorType, Value
from secateur.core.plan import Plan, Scores
from secateur.select.plan import plan
from secateur.select.sharding import sharded_groups

HIDDEN, VOCABULARY = Axis(0, 24), Axis(1, 50)


def transformer(layers: int, *, kv: int = 4, intermediate: int = 20) -> Graph:
    """Grouped-query attention and a gated MLP a layer, as tensors, sizes and one relation.

    Axes of layer n: kv heads, queries of each, head_dim, intermediate at 10 n + 10 .. 10 n + 13.
    """
    tensors = {"embed.weight": _matrix((VOCABULARY,), (HIDDEN,))}
    groups = [_group("embed.weight[0]", VOCABULARY, "embed.weight", 0, pinned="indexed")]
    groups.append(_group("embed.weight[1]", HIDDEN, "embed.weight", 1))
    ops = []
    for n in range(layers):
        heads, rep, width, mlp = (
            Axis(10 * n + 10 + k, size) for k, size in enumerate((kv, 2, 6, intermediate))
        )
        path = f"layers.{n}"
        weights: dict[str, tuple[Dim, Dim]] = {
            f"{path}.q.weight": ((heads, rep, width), (HIDDEN,)),
            f"{path}.kv.weight": ((Concat(((heads, width), (heads, width))),), (HIDDEN,)),
            f"{path}.o.weight": ((HIDDEN,), (heads, rep, width)),
            f"{path}.gate.weight": ((mlp,), (HIDDEN,)),
            f"{path}.down.weight": ((HIDDEN,), (mlp,)),
        }
        tensors |= {name: _matrix(*dims) for name, dims in weights.items()}
        tensors[f"{path}.norm.weight"] = TensorType(((width,),), 4, True, True)
        groups += [
            _group(f"{path}.q.weight[0].0", heads, f"{path}.q.weight", 0),
            _group(f"{path}.q.weight[0].1", rep, f"{path}.q.weight", 0, structural=True),
            _group(f"{path}.q.weight[0].2", width, f"{path}.q.weight", 0),
            _group(f"{path}.gate.weight[0]", mlp, f"{path}.gate.weight", 0),
        ]
        ops += [_product(name, dims) for name, dims in weights.items()]
    return Graph(
        tuple(groups), tensors, tuple(ops), (), (), {}, (), (), {}, "transformer", warnings=()
    )


def _matrix(out: Dim, into: Dim) -> TensorType:
    return TensorType((out, into), 4, True, True)


def _group(
    id: str, axis: Axis, tensor: str, dim: int, *, pinned: str | None = None, structural=False
) -> Group:
    return Group(id, axis, (Member(tensor, dim),), pinned=pinned, structural=structural)


def _product(name: str, dims: tuple[Dim, Dim]) -> Op:
    return Op("mm", name, (Value(0, dims, 4),), (), macs=(dims,))


def scores_of(graph: Graph) -> Scores:
    return {g.id: torch.arange(g.size, dtype=torch.float64) for g in graph.free}


def kept(graph: Graph, found: Plan) -> dict[str, int]:
    return {g.id: len(found.keep.get(g.id, range(g.size))) for g in graph.groups}


def planned(graph: Graph, **options: object) -> dict[str, int]:
    return kept(graph, plan(graph, scores_of(graph), **options))


def test_the_outermost_axes_of_matrices_are_sharded() -> None:
    ids = [group.id for group in sharded_groups(transformer(1))]
    assert ids == ["embed.weight[1]", "layers.0.q.weight[0].0", "layers.0.gate.weight[0]"]


def test_what_the_code_fixes_in_front_is_passed_over() -> None:
    three, heads, width, hidden = Axis(0, 3), Axis(1, 4), Axis(2, 8), Axis(3, 32)
    tensors = {
        "qkv.weight": _matrix((three, heads, width), (hidden,)),
        "proj.weight": _matrix((hidden,), (heads, width)),
        "scale": TensorType(((heads,),), 4, True, True),
        "table": TensorType(((width,), (heads,)), 4, True, False),
    }
    groups = [
        _group("qkv.weight[0].0", three, "qkv.weight", 0, pinned="single indices are selected"),
        _group("qkv.weight[0].1", heads, "qkv.weight", 0),
        _group("qkv.weight[0].2", width, "qkv.weight", 0),
        _group("proj.weight[0]", hidden, "proj.weight", 0),
    ]
    graph = Graph(tuple(groups), tensors, (), (), (), {}, (), (), {}, "fused")
    assert [group.id for group in sharded_groups(graph)] == ["qkv.weight[0].1", "proj.weight[0]"]
    # pinned heads are sharded all the same, and so they are looked at
    pinned = (groups[0], replace(groups[1], pinned="a cache"), *groups[2:])
    graph = replace(graph, groups=pinned)
    assert "qkv.weight[0].1" in [group.id for group in sharded_groups(graph)]
    # a choice of single indices is no axis
    chosen = _matrix((Concat(((), (), ())), heads, width), (hidden,))
    choice = replace(graph, tensors={**tensors, "qkv.weight": chosen})
    assert [group.id for group in sharded_groups(choice)] == ["qkv.weight[0].1", "proj.weight[0]"]


@pytest.mark.parametrize("devices", [2, 4])
def test_whole_heads_a_device(devices: int) -> None:
    graph = transformer(2)
    sizes = planned(graph, keep=0.3, tensor_parallel=devices)
    for n in range(2):
        assert sizes[f"layers.{n}.q.weight[0].0"] == max(2, devices)
        assert sizes[f"layers.{n}.q.weight[0].2"] == 2  # 0.3 of 6, any number will do
        assert sizes[f"layers.{n}.gate.weight[0]"] == {2: 6, 4: 8}[devices]
    assert sizes["embed.weight[1]"] == 8 and sizes["embed.weight[0]"] == 50


def test_a_size_that_is_no_multiple_goes_down_even_where_all_could_stay() -> None:
    graph = transformer(1, intermediate=22)
    sizes = planned(graph, keep=1.0, tensor_parallel=4)
    assert sizes["layers.0.gate.weight[0]"] == 20
    assert sizes["layers.0.q.weight[0].0"] == 4 and sizes["embed.weight[1]"] == 24
    assert planned(graph, budget="params=100%", tensor_parallel=4) == sizes


def test_heads_that_the_devices_cannot_share() -> None:
    graph = transformer(1, kv=3)
    with pytest.raises(
        BudgetError,
        match=r"^tensor_parallel=4: group layers\.0\.q\.weight\[0\]\.0 has 3 units, of which 4 "
        r"devices cannot hold an equal number each; ask for tensor_parallel=3, 2 or 1$",
    ):
        planned(graph, keep=0.5, tensor_parallel=4)
    assert planned(graph, keep=0.5, tensor_parallel=3)["layers.0.q.weight[0].0"] == 3
    with pytest.raises(BudgetError, match=r"has 3 units, of which 4 devices .*=3, 2 or 1$"):
        planned(graph, keep=0.5, tensor_parallel=4, multiple_of=8)
    with pytest.raises(BudgetError, match=r"3 units and keeps at least 3 of them, .*=1$"):
        planned(graph, keep=0.5, tensor_parallel=2, min_units=3)


def test_what_stays_whole_must_be_shareable_too() -> None:
    graph = transformer(1, kv=3)
    heads = "layers.0.q.weight[0].0"
    for change, options, why in (
        ({"pinned": "an output of the model"}, {}, "an output of the model"),
        ({"structural": True}, {}, "left whole, structural; include_structural=True cuts it"),
        ({}, {"groups": ["embed.weight*"]}, "not among those to cut"),
        ({}, {"keep_modules": ["layers.0.q"]}, "left whole by keep_modules='layers.0.q'"),
    ):
        groups = [replace(g, **change) if g.id == heads else g for g in graph.groups]
        other = replace(graph, groups=tuple(groups))
        with pytest.raises(BudgetError, match=r"keeps all of its 3 units \(") as caught:
            planned(other, keep=0.5, tensor_parallel=2, **options)
        assert f"({why}), which 2 devices cannot share equally; ask for" in str(caught.value)
    # three can
    groups = [replace(g, pinned="a cache") if g.id == heads else g for g in graph.groups]
    planned(replace(graph, groups=tuple(groups)), keep=0.5, tensor_parallel=3)


def test_sizes_that_exclude_each_other_name_the_rule() -> None:
    graph = transformer(1, intermediate=21)
    # 7 * n == hidden + 123 for (n, hidden) of (21, 24), (20, 17), (19, 10) and (18, 3)
    sizes = Binary("mul", 7, Size((Axis(13, 21),))), Binary("add", Size((HIDDEN,)), 123)
    graph = replace(graph, relations=(Relation("eq", *sizes, where="model.py:1"),))
    with pytest.raises(
        BudgetError,
        match=r"^tensor_parallel=2 cannot hold: no unit counts .* \(model\.py:1\); .*gate\.weight"
        r"\[0\] keeps one of 2, 4, .* of 21 units.*; relax tensor_parallel=2$",
    ):
        planned(graph, keep=0.5, tensor_parallel=2)


def test_repeated_layers_keep_equal_counts() -> None:
    graph = transformer(3)
    shares = {"layers.0.gate*": 0.9, "layers.1.gate*": 0.2, "layers.2.gate*": 0.5, "embed*": 0.5}
    apart = planned(graph, keep=shares)
    assert [apart[f"layers.{n}.gate.weight[0]"] for n in range(3)] == [18, 4, 10]
    together = planned(graph, keep=shares, uniform_layers=True)
    assert [together[f"layers.{n}.gate.weight[0]"] for n in range(3)] == [18, 18, 18]
    assert together["embed.weight[1]"] == apart["embed.weight[1]"] == 12


@pytest.mark.parametrize("selector", ["uniform", "global"])
@pytest.mark.parametrize("share", [30, 55, 80])
def test_all_rules_and_a_budget(selector: str, share: int) -> None:
    graph = transformer(3, kv=8, intermediate=64)
    generator = torch.Generator().manual_seed(0)
    scores = {
        g.id: torch.rand(g.size, generator=generator, dtype=torch.float64) for g in graph.free
    }
    rules = {"tensor_parallel": 2, "uniform_layers": True, "multiple_of": 4, "min_units": 4}
    found = plan(graph, scores, budget=f"params={share}%", selector=selector, **rules)
    sizes = kept(graph, found)
    assert 0 < found.after.params <= share / 100 * found.before.params
    for place in ("q.weight[0].0", "q.weight[0].2", "gate.weight[0]"):
        counts = {sizes[f"layers.{n}.{place}"] for n in range(3)}
        assert len(counts) == 1
        # six of six units are all, and a head's width is not sharded; the width of heads answers
        # for the multiple, not their number
        if place == "q.weight[0].2":
            assert counts <= {4, 6}
        else:
            assert counts.pop() % (4 if place == "gate.weight[0]" else 2) == 0
    assert sizes["embed.weight[1]"] % 4 == 0 and found.settings["tensor_parallel"] == 2


def test_a_layer_that_stays_whole_holds_the_others() -> None:
    graph = transformer(2)
    found = plan(
        graph, scores_of(graph), keep=0.5, uniform_layers=True, keep_modules=["layers.1.gate"]
    )
    sizes = kept(graph, found)
    assert sizes["layers.0.gate.weight[0]"] == sizes["layers.1.gate.weight[0]"] == 20
    held = [note for note in found.notes if note.startswith("layers.0.gate")]
    assert held == [
        "layers.0.gate.weight[0]: left whole, uniform_layers keeps it equal to "
        "layers.1.gate.weight[0] (stays whole)"
    ]
    with pytest.raises(BudgetError, match=r"or relax .*uniform_layers=True"):
        plan(
            graph,
            scores_of(graph),
            budget="params=3%",
            uniform_layers=True,
            groups=["layers.0.gate*", "layers.*.q*", "embed*"],
            min_units=2,
        )


def test_rules_of_a_plan_are_recorded() -> None:
    graph = transformer(1)
    found = plan(graph, scores_of(graph), keep=0.5, tensor_parallel=2, uniform_layers=True)
    assert found.settings["tensor_parallel"] == 2 and found.settings["uniform_layers"] is True
    assert Plan.from_json(found.to_json()) == found
    with pytest.raises(ValueError, match="tensor_parallel=0: must be at least 1"):
        planned(graph, keep=0.5, tensor_parallel=0)
