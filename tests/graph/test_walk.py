"""Our walks over modules and tensors give what torch's own give, in the same order."""

from __future__ import annotations

from torch import nn

from secateur.core.fingerprint import named_modules, named_tensors


def model() -> nn.Module:
    shared = nn.Linear(4, 4)
    root = nn.Sequential(shared, nn.Sequential(shared, nn.BatchNorm1d(4)), nn.ReLU())
    root[1].again = root[2]
    root.absent = None
    root[1].register_module("none", None)
    root[2].tied = nn.Linear(4, 4)
    root[2].tied.weight = shared.weight
    root[1].register_buffer("nothing", None)
    return root


def test_modules() -> None:
    root = model()
    assert named_modules(root) == list(root.named_modules())
    assert named_modules(root, repeated=True) == list(root.named_modules(remove_duplicate=False))


def test_tensors() -> None:
    root = model()
    expected = [
        *root.named_parameters(remove_duplicate=False),
        *root.named_buffers(remove_duplicate=False),
    ]
    found = list(named_tensors(root))
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert all(a is b for (_, a), (_, b) in zip(found, expected, strict=True))
