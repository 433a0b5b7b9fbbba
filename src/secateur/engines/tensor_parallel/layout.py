"""How the tensors of a checkpoint are shared out, each as the model's tensor that it belongs to.

A checkpoint names its tensors by paths: ``model/0.weight``, ``best/weights/0.weight``,
``optimizer/state/3/momentum_buffer``. What belongs to a parameter, and its mask, is shared out as
the parameter is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.tensor_parallel.whole import Split, part_of, split_of
from secateur.masks.parametrization import masked_places

_STATE = re.compile(r"optimizer/state/(\d+)/[^/]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """known: by the names that tensors have in a model now, those that they have without masks.
    parameters: names of now. trained: those that an optimizer has, in its order."""

    plan: TensorParallelPlan
    known: Mapping[str, str]
    parameters: frozenset[str]
    trained: tuple[str, ...]

    @classmethod
    def of_model(cls, model: nn.Module, plan: TensorParallelPlan) -> Layout:
        """Of a training of a model, or of a rank's part of it."""
        parameters = dict(model.named_parameters())
        known = {name: name for name in (*parameters, *dict(model.named_buffers()))}
        for name, _, leaf, _ in masked_places(model):
            below = f"{name[: -len(leaf)]}parametrizations.{leaf}"
            known |= {f"{below}.original": name, f"{below}.0.kept": name}
        trained = [name for name, parameter in parameters.items() if parameter.requires_grad]
        return cls(plan, known, frozenset(parameters), tuple(trained))

    def split(self, path: str, tensor: Tensor) -> Split | None:
        """How a tensor is shared out; None for what every rank has all of."""
        name = self._known(path, tensor)
        return None if name is None else split_of(self.plan, name)

    def part(self, path: str, tensor: Tensor, *, rank: int) -> Tensor:
        """What a rank holds of a whole tensor."""
        name = self._known(path, tensor)
        return tensor if name is None else part_of(tensor, name, self.plan, rank)

    def is_of_parameter(self, path: str, tensor: Tensor) -> bool:
        """Whether it is a parameter's value, average or momentum."""
        return self._now(path, tensor) in self.parameters

    def _known(self, path: str, tensor: Tensor) -> str | None:
        now = self._now(path, tensor)
        return None if now is None else self.known.get(now)

    def _now(self, path: str, tensor: Tensor) -> str | None:
        found = _STATE.fullmatch(path)
        if found is None:
            return path.rpartition("/")[2]
        return self.trained[int(found[1])] if tensor.ndim else None
