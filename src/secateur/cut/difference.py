"""How far two lists of outputs are apart, and whether a reference is defined at all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from secateur.core.errors import ProofError


def has_nan(outputs: Sequence[Tensor]) -> bool:
    """Whether any output holds a number that is none."""
    return any(bool(_numbers(t).isnan().any()) for t in outputs if t.is_floating_point())


def difference(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> tuple[float, float]:
    """Largest absolute difference, and that over the largest magnitude of the same output.

    Equal infinities (masked-out logits) are equal. Raises: ProofError for another number of
    outputs or another shape, and for NaN.
    """
    if len(outputs) != len(expected):
        raise ProofError(
            f"the cut model returns {len(outputs)} tensors, the masked one {len(expected)}"
        )
    absolute = relative = 0.0
    for ours, theirs in zip(outputs, expected, strict=True):
        if ours.is_nested and theirs.is_nested:
            ours, theirs = ours.to_padded_tensor(0.0), theirs.to_padded_tensor(0.0)
        if ours.shape != theirs.shape:
            raise ProofError(
                f"an output has shape {tuple(ours.shape)}, the masked one's {tuple(theirs.shape)}"
            )
        if not ours.numel() or not (ours.is_floating_point() or ours.is_complex()):
            continue  # indices may tie
        a, b = _numbers(ours), _numbers(theirs)
        apart = torch.where(a == b, 0.0, (a - b).abs()).max().item()
        if apart != apart:
            raise ProofError(
                "the outputs contain NaN; check the weights and the example inputs, "
                "then verify again"
            )
        finite = b[b.isfinite()].abs()
        scale = finite.max().item() if finite.numel() else 0.0
        absolute = max(absolute, apart)
        relative = max(relative, apart / scale if scale else float(apart > 0))
    return absolute, relative


def _numbers(tensor: Tensor) -> Tensor:
    if tensor.is_nested:
        tensor = tensor.to_padded_tensor(0.0)
    parts = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
    return parts.detach().to(torch.float64)
