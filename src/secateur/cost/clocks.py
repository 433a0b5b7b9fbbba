"""What each module of a model takes by itself in a forward, with a clock in every module.

The clocks cost time as well, so what comes out is good as shares of a whole that was measured
without them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn

from secateur.core.fingerprint import named_modules
from secateur.core.modes import evaluating
from secateur.cost.batch import device_of, moved
from secateur.cost.latency import threads_set
from secateur.cost.runtimes.prepared import call_of

PASSES = 7
"""Forwards with clocks, of which the median counts; as many again go before, to warm up."""
SECONDS = 2.0
"""Where that takes longer, forwards end; two are the fewest, the second of which counts."""


def own_times(model: nn.Module, inputs: Any, *, threads: int | None = None) -> dict[str, float]:
    """Milliseconds that each module takes by itself in one forward, its children's taken away."""
    paths = {id(module): path for path, module in reversed(named_modules(model))}
    passes: list[dict[str, float]] = []
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode())
        stack.enter_context(threads_set(threads))
        stack.enter_context(evaluating(model))
        device = device_of(model)
        run = call_of(model, moved(inputs, device))
        own = stack.enter_context(_clocks(paths, device))
        started = time.perf_counter()
        while len(passes) < 2 * PASSES:
            own.clear()
            run()
            passes.append(dict(own))
            if len(passes) >= 2 and time.perf_counter() - started > SECONDS:
                break
    names = dict.fromkeys(name for one in passes for name in one)
    late = passes[len(passes) // 2 :]
    return {n: statistics.median(one.get(n, 0.0) for one in late) for n in names}


@contextmanager
def _clocks(paths: Mapping[int, str], device: torch.device) -> Iterator[dict[str, float]]:
    """Milliseconds by path of every module call inside the block, without what it calls; on an
    accelerator until the call's own kernels are done."""
    asynchronous = device.type != "cpu"
    own: dict[str, float] = {}
    inner = [0.0]
    plain: Callable[..., Any] = nn.Module._call_impl
    clock = time.perf_counter

    def clocked(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        inner.append(0.0)
        started = clock()
        try:
            return plain(module, *args, **kwargs)
        finally:
            if asynchronous:
                torch.accelerator.synchronize(device)
            spent = clock() - started
            path = paths.get(id(module), "")
            own[path] = own.get(path, 0.0) + 1e3 * (spent - inner.pop())
            inner[-1] += spent

    nn.Module._call_impl = clocked  # type: ignore[assignment, method-assign]
    try:
        yield own
    finally:
        nn.Module._call_impl = plain  # type: ignore[method-assign]
