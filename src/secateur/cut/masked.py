"""The reference that a cut is compared with: the original with the same units zeroed.

Every index that a removed unit occupies, in every parameter and buffer of its group, is set to
zero. A removed unit then adds nothing anywhere, which is what its removal means.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.core.copies import copied
from secateur.core.fingerprint import named_tensors
from secateur.core.plan import Plan
from secateur.cut.apply import check_fingerprint, kept_of


def masked(model: nn.Module, plan: Plan) -> nn.Module:
    """A copy of `model` in which the units that the plan removes are zero.

    Raises: PlanMismatchError when the plan was made for another model.
    """
    check_fingerprint(model, plan)
    reference = copied(model)
    kept = kept_of(plan)
    done: set[int] = set()
    with torch.no_grad():
        for name, tensor in named_tensors(reference):
            if name in plan.tensors and id(tensor) not in done:
                done.add(id(tensor))
                for dim, indices in enumerate(kept(name)):
                    if indices is not None:
                        _zero_all_but_(tensor, dim, indices)
    return reference


def _zero_all_but_(tensor: Tensor, dim: int, kept: Tensor) -> None:
    if not tensor.is_floating_point() and not tensor.is_complex():
        return  # an index table: what it points at is zeroed
    removed = torch.ones(tensor.shape[dim], dtype=torch.bool)
    removed[kept] = False
    tensor.index_fill_(dim, removed.nonzero().flatten().to(tensor.device), 0)
