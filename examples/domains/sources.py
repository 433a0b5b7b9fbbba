"""Where the domains find packages with real weights and data, and what the benchmarks define.

Packages are looked up and never imported; a missing one is named with the command that installs it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# the Fashion-MNIST network, the lists of photos, and the model code that tests share
sys.path[:0] = [str(ROOT / place) for place in ("benchmarks", "tests/real", "tests/zoo")]


def package(module: str, name: str) -> Path:
    """The folder of an installed package. Raises: ModuleNotFoundError that says what to type."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"pip install --no-deps {name}", name=module)
    return Path(spec.origin).parent


def folder(path: Path, command: str) -> Path:
    """The same path. Raises: FileNotFoundError with the command that makes it."""
    if not path.is_dir():
        raise FileNotFoundError(f"{path} is missing: {command}")
    return path
