"""Trees of plain values and tensors go through JSON and back; nothing else is taken."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from secateur.core.errors import TrainError
from secateur.train.packing import pack, unpack

plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text() | st.integers()
trees = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(st.sampled_from(["$tuple", "$items", "$tensor"]), inner)
    ),
    max_leaves=12,
)


@given(trees)
def test_plain_trees_survive_json(tree: object) -> None:
    body, tensors = pack(tree)
    assert unpack(json.loads(json.dumps(body)), tensors) == tree


def test_tensors_keep_type_shape_and_bits() -> None:
    values = [
        torch.randn(3, 2, dtype=torch.bfloat16),
        torch.tensor(7),
        torch.zeros(0, 4),
        torch.tensor([True, False]),
        torch.arange(12).reshape(3, 4).t(),
    ]
    body, tensors = pack({"a": values, 0: {"b": values[0]}})
    back = unpack(json.loads(json.dumps(body)), tensors)
    for old, new in zip(values, back["a"], strict=True):
        assert old.dtype == new.dtype
        assert torch.equal(old, new)
    assert torch.equal(back[0]["b"], values[0])


def test_packed_tensors_share_no_memory() -> None:
    whole = torch.arange(6.0)
    _, tensors = pack([whole, whole, whole[2:4]])
    assert len({tensor.data_ptr() for tensor in tensors.values()}) == 3
    whole.zero_()
    assert tensors["0"].tolist() == [0, 1, 2, 3, 4, 5]


def test_paths_that_look_alike_do_not_collide() -> None:
    body, tensors = pack({"a/b": torch.zeros(1), "a": {"b": torch.ones(1)}})
    back = unpack(body, tensors)
    assert (back["a/b"].item(), back["a"]["b"].item()) == (0, 1)


def test_other_values_are_an_error_that_names_the_place() -> None:
    with pytest.raises(TrainError, match=r"state/0/hook is a function.*never a pickle"):
        pack({"state": {0: {"hook": test_other_values_are_an_error_that_names_the_place}}})
