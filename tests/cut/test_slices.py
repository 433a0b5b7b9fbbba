"""Slicing in blocks of rows gives what one selection after another gives."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from secateur.cut import slicing


def selected(tensor: Tensor, kept: tuple[Tensor | None, ...]) -> Tensor:
    for k, indices in enumerate(kept):
        tensor = tensor if indices is None else tensor.index_select(k, indices)
    return tensor


@pytest.mark.parametrize("block", (1, 7, 64, 1 << 16))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.int64), ids=str)
def test_blocks(block, dtype, monkeypatch) -> None:
    monkeypatch.setattr(slicing, "_BLOCK", block)
    whole = torch.arange(9 * 8 * 3 * 2).to(dtype)
    choices = (None, torch.tensor([0, 1]), torch.tensor([1]))
    slicer = slicing.Slicer()
    for shape in ((9, 48), (9, 8, 6), (9, 8, 3, 2)):
        tensor = whole.reshape(shape)
        views = [tensor, tensor.transpose(0, 1).contiguous().transpose(0, 1)]
        for kept in product((torch.tensor([0, 3, 4, 7, 8]), None), *[choices] * (len(shape) - 1)):
            for view in views:
                found = slicer(view, kept)
                assert torch.equal(found, selected(view, kept))
                if any(own is not None for own in kept):
                    assert found.is_contiguous() and found.data_ptr() != view.data_ptr()
