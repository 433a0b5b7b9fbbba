"""The names that rules claim: they exist, and each is claimed once."""

from __future__ import annotations

import importlib
import pkgutil
from collections import Counter

import pytest
import torch
from torchvision_ops import define_torchvision_ops

from secateur.graph import rules
from secateur.graph.rules import all_rules


def test_every_claimed_operator_exists():
    kept = define_torchvision_ops()  # torchvision's operators count as well
    known = (torch.ops.aten, torch.ops.torchvision)
    missing = [
        name
        for name in all_rules()
        if not any(hasattr(ops, name) or hasattr(ops, f"{name}_") for ops in known)
    ]
    assert missing == []
    del kept


def test_no_operator_is_claimed_twice():
    claims: Counter[str] = Counter()
    for info in pkgutil.iter_modules(rules.__path__):
        module = importlib.import_module(f"{rules.__name__}.{info.name}")
        for rule in vars(module).values():
            if getattr(rule, "__module__", None) == module.__name__:
                claims.update(getattr(rule, "operators", ()))
    assert [name for name, count in claims.items() if count > 1] == []
    assert set(claims) == set(all_rules())


@pytest.mark.parametrize(
    "name",
    "convolution addmm native_layer_norm native_batch_norm view permute cat slice embedding "
    "index gather mean max_pool2d_with_indices constant_pad_nd arange _softmax _to_copy glu "
    "_fft_r2c view_as_complex _scaled_dot_product_flash_attention_for_cpu".split(),
)
def test_a_rule_covers_the_common_operators(name):
    assert callable(all_rules()[name])
