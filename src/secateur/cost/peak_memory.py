"""Peak memory of a forward, as the allocator sees it.

On the CPU every allocation of torch's own allocator is followed through the profiler: activations,
what operators take to work in, what Python still holds. On an accelerator the allocator's own
high-water mark is read. What libraries take behind the allocator's back is not seen.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved, resize_batch
from secateur.cost.latency import threads_set
from secateur.cost.runtimes import call_of

_SILENT = "6"
"""Above every level that the profiler's own log knows: it would write two lines for each use."""


@dataclass(frozen=True, slots=True)
class PeakMemory:
    """Bytes that a forward needs at its worst moment, without gradients.

    weights_bytes: parameters and buffers. activations_bytes: everything else that is allocated at
    once, with the inputs.

    >>> PeakMemory(400, 100, 1, "cpu").total_bytes
    500
    """

    weights_bytes: int
    activations_bytes: int
    batch: int
    device: str

    @property
    def total_bytes(self) -> int:
        """Weights and activations."""
        return self.weights_bytes + self.activations_bytes

    def to_json(self) -> dict[str, Any]:
        """The fields and the total."""
        return asdict(self) | {"total_bytes": self.total_bytes}


@torch.inference_mode()
def measure_peak_memory(
    model: nn.Module,
    example_inputs: Any,
    *,
    batch_size: int | None = None,
    threads: int | None = None,
) -> PeakMemory:
    """What one forward takes at most, in evaluation mode, where the parameters lie.

    `batch_size` repeats or trims the example along dim 0; `threads` holds for this call only. A
    forward goes before, so that what is made once and kept is not counted as an activation.
    Raises: ValueError for a device whose allocator cannot be asked.
    """
    device = device_of(model)
    inputs, batch = resize_batch(example_inputs, batch_size)
    inputs = moved(inputs, device)
    with evaluating(model), threads_set(threads):
        run = call_of(model, inputs)
        run()
        taken = _on_cpu(run) if device.type == "cpu" else _on_accelerator(run, device)
    given = storage_bytes(leaf for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))
    weights = storage_bytes(chain(model.parameters(), model.buffers()))
    return PeakMemory(weights, taken + given, batch, str(device))


def storage_bytes(tensors: Iterator[Tensor]) -> int:
    """Memory of tensors, what they share once, all of what a view looks into.

    >>> whole = torch.zeros(10)
    >>> storage_bytes(iter((whole, whole[:3])))
    40
    """
    storages = {s._cdata: s.nbytes() for s in (t.untyped_storage() for t in tensors)}
    return sum(storages.values())


def _on_cpu(run: Callable[[], Any]) -> int:
    """Largest sum of what was allocated and not given back since the forward began."""
    with _profiler_silent(), torch.autograd.profiler.profile(profile_memory=True) as profile:
        run()
    assert profile.kineto_results is not None
    events = [e for e in profile.kineto_results.events() if e.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    alive: Iterator[int] = accumulate((event.nbytes() for event in events), initial=0)
    return max(alive)


def _on_accelerator(run: Callable[[], Any], device: torch.device) -> int:
    if device.type != "cuda":
        raise ValueError(
            f"peak memory cannot be measured on {device.type}; move the model with model.to('cpu') "
            "or model.to('cuda')"
        )
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


@contextmanager
def _profiler_silent() -> Iterator[None]:
    name = "KINETO_LOG_LEVEL"  # read when the first profiler of a process starts
    before = os.environ.get(name)
    os.environ.setdefault(name, _SILENT)
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
