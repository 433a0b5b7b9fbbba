"""Random number generators: captured and restored, so that a resumed run draws the same numbers.

Torch on the CPU and on every GPU, Python's `random`, NumPy's legacy generator, and the generators
that a DataLoader holds. The captured value is plain (see `packing`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

RandomState = dict[str, Any]


def capture(data: object = None) -> RandomState:
    """The state of all global generators, and of those in `data` when it is a DataLoader."""
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state(legacy=True)
    on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if on_gpu else []
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(cuda),
        "python": [version, torch.tensor(words, dtype=torch.int64), gauss],
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "data": [generator.get_state() for generator in _generators(data)],
    }


def restore(state: RandomState, data: object = None) -> None:
    """Set every generator to a captured state."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    for generator, saved in zip(_generators(data), state["data"], strict=True):
        generator.set_state(saved)


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """Seed torch inside the block and put the caller's generators back after it.

    None leaves everything as it is.
    """
    if seed is None:
        yield
        return
    before = capture()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        restore(before)


def _generators(data: object) -> list[torch.Generator]:
    if not isinstance(data, DataLoader):
        return []
    samplers = [data.sampler, getattr(data.batch_sampler, "sampler", None)]
    known = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)
    found = [data.generator, *(s.generator for s in samplers if isinstance(s, known))]
    unique = {id(g): g for g in found if isinstance(g, torch.Generator)}
    return list(unique.values())
