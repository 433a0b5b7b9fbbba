"""One thread, fixed seeds, and types checked at run time.

Tensor shapes in annotations (jaxtyping) and all other annotations are checked with beartype while
the tests run, and only then: the hook has to stand before the first import of secateur.
"""

from __future__ import annotations

import importlib.util
import os
import random
import sys
from pathlib import Path

# read by the test processes themselves and by those they start
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy
import pytest
import torch
from hypothesis import HealthCheck, settings

if importlib.util.find_spec("jaxtyping") and importlib.util.find_spec("beartype"):
    from jaxtyping import install_import_hook

    # an int is a float wherever one is asked for, as the type checkers see it
    CHECKER = "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
    install_import_hook("secateur", CHECKER)

# `torchvision_ops` makes torchvision importable on a CPU build of torch, for any test that asks
SHARED = ("zoo", "graph", "select", "cut", "engines")
sys.path[:0] = [str(Path(__file__).parent / folder) for folder in SHARED]

torch.set_num_threads(1)
settings.register_profile(
    "secateur",
    deadline=None,  # nothing here is timed
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("secateur")


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    """Every test starts from the same random state, whichever tests ran before it."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True)
