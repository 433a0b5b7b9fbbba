"""Where a zeroed unit leaves something behind, and the sums that must be flagged for it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from secateur.graph.call import OpCall, set_dims
from secateur.graph.dispatch import rule_for
from secateur.graph.rules import zeros
from secateur.graph.rules.zeros import follow_zeros, survivors
from secateur.graph.types import Atom, fresh, fresh_all, leaves

aten = torch.ops.aten
N, C, D, E = (fresh(size)[0] for size in (3, 4, 5, 6))


def made(*atoms: Atom) -> torch.Tensor:
    """A parameter of these axes, zero at a zeroed unit."""
    tensor = torch.ones([atom.size for atom in atoms])
    set_dims(tensor, tuple((atom,) for atom in atoms))
    return tensor


def run(op, *args, **kwargs):
    out = op(*args, **kwargs)
    call = OpCall(op, args, kwargs, out)
    rule = rule_for(op)
    assert rule is not None
    answer = rule(call)
    for tensor, dims in zip(
        out if call.returns_many else [out],
        answer if isinstance(answer, list) else [answer],
        strict=True,
    ):
        set_dims(tensor, dims if dims is not None else fresh_all(tensor.shape))
    follow_zeros(call)
    return out


def test_a_sigmoid_survives_and_a_gate_does_not():
    x = made(N, C)
    gate = run(aten.sigmoid.default, x)
    assert survivors(x) == set()
    assert survivors(gate) == {N, C}
    assert survivors(run(aten.mul.Tensor, x, gate)) == set()
    assert survivors(run(aten.relu.default, x)) == set()
    assert survivors(run(aten.add.Tensor, x, 1)) == {N, C}
    assert survivors(run(aten.add.Tensor, x, made(C))) == {N}


def test_a_product_is_zero_where_one_factor_is():
    survivor = run(aten.exp.default, made(N, C))
    product = run(aten.mm.default, survivor, made(C, D))
    assert survivors(product) == {N}
    biased = run(aten.addmm.default, made(D), made(N, C), made(C, D))
    assert survivors(biased) == {N}


def test_norms_survive_without_a_weight():
    x = made(N, C)
    assert survivors(run(aten.native_layer_norm.default, x, [4], None, None, 1e-5)[0]) == {C}
    affine = run(aten.native_layer_norm.default, x, [4], made(C), made(C), 1e-5)[0]
    assert survivors(affine) == set()
    assert survivors(run(aten._fused_rms_norm.default, x, [4], None, None)[0]) == set()


def test_views_carry_survivors_and_copies_survive_along_the_copies():
    survivor = run(aten.cos.default, made(N, C))
    assert survivors(run(aten.permute.default, survivor, [1, 0])) == {N, C}
    copies = run(aten.expand.default, run(aten.unsqueeze.default, made(C), 0), [6, 4])
    assert {atom.size for atom in survivors(copies)} == {6}


def flags_of(tensor_atom: Atom) -> set[str]:
    return {kind for atom in leaves((tensor_atom,)) for kind in atom.flags}


def test_a_sum_over_survivors_is_flagged():
    kept, lost = fresh(4)[0], fresh(4)[0]
    run(aten.sum.dim_IntList, run(aten.tanh.default, made(N, kept)), [1])
    run(aten.sum.dim_IntList, run(aten.sigmoid.default, made(N, lost)), [1])
    assert (flags_of(kept), flags_of(lost)) == (set(), {"renormalised"})


def test_linear_attention_with_a_feature_map_is_flagged_along_its_features():
    feature, value = fresh(4)[0], fresh(5)[0]
    features = [run(aten.add.Tensor, run(aten.elu.default, made(N, feature)), 1) for _ in "qk"]
    context = run(aten.mm.default, run(aten.t.default, features[1]), made(N, value))
    out = run(aten.mm.default, features[0], context)
    assert flags_of(feature) == {"renormalised"}
    assert flags_of(value) == set()
    assert out.shape == (3, 5)


def test_softmax_weights_times_values_are_exact_in_the_values():
    keys, value = fresh(4)[0], fresh(5)[0]
    weights = run(aten._softmax.default, made(N, keys), -1, False)
    out = run(aten.mm.default, weights, made(keys, value))
    assert value not in survivors(out)
    assert flags_of(value) == set()


def test_the_flag_is_needed():
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, 4, dtype=torch.float64) for _ in range(3))

    def attend(q, k):
        return (F.elu(q) + 1) @ (F.elu(k) + 1).T @ v

    keep = torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64)
    assert not torch.allclose(attend(q * keep, k * keep), attend(q[:, :3], k[:, :3]))


@pytest.mark.parametrize("name", sorted(zeros._KEEPING_ZERO))
def test_what_is_taken_to_keep_zero_does(name: str):
    packet = getattr(aten, name)
    binary = "Tensor" in packet.overloads()
    func, count = (packet.Tensor, 2) if binary else (packet.default, 1)
    given = ((zeros._TENSOR,) * count, ())
    assert not zeros._probe(func, given, (torch.float32,) * count, (True,) * count)
