"""Names of torchvision's operators exist before any test imports torchvision or timm."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
importlib.import_module("torchvision_ops").define_torchvision_ops()
