"""Random numbers of a rank: its own in a forward, the common ones everywhere else.

Data must come in the same order on every rank, so what reads it draws from a generator that stands
at the same place on all of them. Dropout must differ, so a forward draws from one that is seeded by
the training's seed, the step and the rank. Nothing of that has to be kept in a checkpoint: a run
that goes on draws what it would have drawn, whichever rank is started again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from secateur.engines.training import Moment


@contextmanager
def own_draws(moment: Moment, *, rank: int) -> Iterator[None]:
    """Draw from this rank's own generator inside the block."""
    words = [moment.seed & 0xFFFFFFFF, moment.step, moment.part, rank]
    common = torch.get_rng_state()
    seed = int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)
    # not torch.manual_seed, which also notes a whole stack for each kind of device that is not used
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.manual_seed_all(seed)
    try:
        yield
    finally:
        torch.set_rng_state(common)
