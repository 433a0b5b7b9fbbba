"""What a student can follow in its teacher: a term each, which compares the two on one batch.

A term is a value with a weight. It says which modules it wants to see (`pairs`), what the forward
must be asked for (`asks`), and makes a loss of what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train.taps import Pairs, paired

Select = Callable[[Any, Any], Tensor]
"""Of a model's outputs and the batch the tensor that is compared."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One batch through both models.

    student, teacher: their outputs. features: for each pair of the term what its modules put out,
    the student's through its projection where there is one.
    """

    batch: Any
    student: Any
    teacher: Any
    features: tuple[tuple[Tensor, Tensor], ...] = field(default=())


@runtime_checkable
class Term(Protocol):
    """One thing to follow. projects: whether features of other widths are projected."""

    @property
    def weight(self) -> float: ...

    @property
    def projects(self) -> bool: ...

    @property
    def asks(self) -> Mapping[str, Any]: ...

    def pairs(self, student: nn.Module, teacher: nn.Module) -> Pairs: ...

    def loss(self, seen: Seen) -> Tensor: ...


class FollowsOutputs:
    """A term that looks at what the models return anyway."""

    __slots__ = ()

    @property
    def asks(self) -> Mapping[str, Any]:
        return {}

    def pairs(self, student: nn.Module, teacher: nn.Module) -> Pairs:
        return ()


class FollowsLayers:
    """A term that looks at pairs of hidden layers, named by its `layers`."""

    __slots__ = ()
    layers: str | Sequence[str] | Mapping[str, str]

    @property
    def asks(self) -> Mapping[str, Any]:
        return {}

    def pairs(self, student: nn.Module, teacher: nn.Module) -> Pairs:
        return paired(self.layers, student, teacher)


def output_tensor(outputs: Any, batch: Any) -> Tensor:
    """The tensor of a model's output: itself, its `.logits`, or its `.last_hidden_state`.

    Raises: TrainError when there is none.
    """
    if isinstance(outputs, Tensor):
        return outputs
    for name in ("logits", "last_hidden_state"):
        found = getattr(outputs, name, None)
        if isinstance(found, Tensor):
            return found
    raise TrainError(
        f"a {type(outputs).__name__} is neither a tensor nor has it .logits or .last_hidden_state; "
        "say what to compare: select=lambda outputs, batch: ..."
    )


def real_positions(tensor: Tensor, batch: Any) -> Tensor:
    """Without the positions that the batch's attention mask calls padding: [positions, ...].

    Tensors that have no such positions come back as they are.
    """
    mask = batch.get("attention_mask") if isinstance(batch, Mapping) else None
    if not isinstance(mask, Tensor) or tensor.ndim < 3 or mask.shape != tensor.shape[:2]:
        return tensor
    return tensor[mask.to(tensor.device) != 0]


def target(teacher: Tensor, student: Tensor) -> Tensor:
    """A teacher's tensor where and as the student's is, without gradient, in single precision."""
    return teacher.detach().to(student.device, torch.float32)
