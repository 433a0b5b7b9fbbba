"""Objectives that learn: their parameters are trained with the model and thrown away at the end.

Distillation over features of different widths is one: projections are needed for its loss alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from secateur.core.errors import TrainError
from secateur.train.batches import device_of, to_device
from secateur.train.random_state import capture, restore


@runtime_checkable
class Learnt(Protocol):
    """An objective with parameters, which `prepare_` makes from what a first batch shows."""

    def __call__(self, model: nn.Module, batch: Any) -> Tensor: ...

    def prepare_(self, model: nn.Module, batch: Any) -> None: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def state_dict(self) -> Mapping[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any: ...


def prepared_parameters(objective: object, model: nn.Module, data: Iterable[Any]) -> list[Any]:
    """The parameters of an objective that learns, made for this model and data; else none.

    Reading a batch leaves the random numbers as they were. Raises: TrainError without a batch.
    """
    if not isinstance(objective, Learnt):
        return []
    before = capture(data)
    batch = next(iter(data), None)
    restore(before, data)
    if batch is None:
        raise TrainError("the data is empty: train_data has no batch; give at least one")
    objective.prepare_(model, to_device(batch, device_of(model)))
    return list(objective.parameters())


def learnt_state(objective: object) -> dict[str, Any]:
    """What a checkpoint must hold of an objective."""
    return dict(objective.state_dict()) if isinstance(objective, Learnt) else {}


def load_learnt_(objective: object, state: Mapping[str, Any]) -> None:
    """Put an objective's saved parameters back."""
    if isinstance(objective, Learnt):
        objective.load_state_dict(state)
