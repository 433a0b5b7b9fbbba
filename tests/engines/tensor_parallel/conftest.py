"""Models and threads for these tests; names of torchvision's operators, which timm asks for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent), str(HERE.parents[1] / "zoo")]
importlib.import_module("torchvision_ops").define_torchvision_ops()
