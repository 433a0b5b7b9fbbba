"""Random numbers where ranks hold different units: each draws its own, and the common stream goes
on as if one number had been drawn, so that what all ranks hold stays the same on all of them.

All ranks of a tensor-parallel group must have been seeded alike. A module that draws for pieces
draws the seed of its own stream from the common one; a module inside it that draws for what is
whole gets the common stream back while it runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_States = list[Tensor]


@dataclass
class Streams:
    """The common stream and this rank's own, by turns in torch's generators."""

    rank: int
    waiting: list[_States] = field(default_factory=list)
    """What to go back to, the innermost last."""

    def own(self, module: nn.Module, *given: Any) -> None:
        """A module's pre-hook: from here on this rank draws its own numbers."""
        if module.training:
            seed = int(torch.randint(2**31, ()))
            self.waiting.append(_read())
            torch.manual_seed(seed + self.rank + 1)

    def common_again(self, module: nn.Module, *given: Any) -> None:
        """A module's hook: back to the common stream."""
        if module.training and self.waiting:
            _write(self.waiting.pop())

    def common(self, module: nn.Module, *given: Any) -> None:
        """The pre-hook of a module inside, which draws as all ranks do."""
        if module.training and self.waiting:
            own = _read()
            _write(self.waiting[-1])
            self.waiting.append(own)

    def own_again(self, module: nn.Module, *given: Any) -> None:
        """Its hook: the numbers that it drew are gone from the common stream too."""
        if module.training and len(self.waiting) > 1:
            own = self.waiting.pop()
            self.waiting[-1] = _read()
            _write(own)


def _read() -> _States:
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    return states


def _write(states: _States) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
