"""timm: for each model file the smallest model of each architecture in it, and then the next.

`names` takes, in every file of `timm.models` that registers models, the smallest by parameters of
each family (the letters that names start with), then fills up with the next smallest of each file
until there are `AT_LEAST`. Sizes are counted on the meta device once a version of timm and kept in
`runs/`. `all_names` is everything that timm registers. Images are the smallest that the forward
accepts; models with a fixed size get theirs, or are built for a smaller one where they can be.
"""

from __future__ import annotations

import json
import re
import sys
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision_ops import define_torchvision_ops

define_torchvision_ops()

import timm  # noqa: E402
from timm.models import is_model, list_models  # noqa: E402
from timm.models._registry import _model_to_module as FILES  # noqa: E402

AT_LEAST = 215
LARGEST = 120_000_000
"""Parameters beyond which a model is taken only where its family has no smaller one."""
SIZES_PX = (96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512)
FIXED_PX = 256
"""A fixed image size above this is asked to be smaller."""
CACHE = Path(__file__).parents[2] / "runs" / f"timm_{timm.__version__}_params.json"


def names() -> list[str]:
    sizes = parameters()
    by_file: dict[str, list[str]] = defaultdict(list)
    for name in sorted(sizes, key=lambda name: (sizes[name], name)):
        by_file[FILES[name]].append(name)
    chosen: set[str] = set()
    for listed in by_file.values():
        first: dict[str, str] = {}
        for name in listed:
            first.setdefault(_family(name), name)
        chosen |= {name for name in first.values() if sizes[name] <= LARGEST} | {listed[0]}
    rest = [
        (depth, sizes[name], name)
        for listed in by_file.values()
        for depth, name in enumerate(listed)
        if name not in chosen and sizes[name] <= LARGEST
    ]
    chosen |= {name for *_, name in sorted(rest)[: max(0, AT_LEAST - len(chosen))]}
    return sorted(chosen)


def all_names() -> list[str]:
    return list(list_models())


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    assert is_model(name)
    torch.manual_seed(seed)
    model = timm.create_model(name).eval()
    config = model.pretrained_cfg
    own = int(config["input_size"][-1])
    if config.get("fixed_input_size"):
        return _resized(name, model, own, seed)
    for size in SIZES_PX:
        image = torch.randn(1, 3, size, size)
        if size < own and _runs(model, image):
            return model, image
    return model, torch.randn(1, 3, own, own)


def _resized(name: str, model: nn.Module, own: int, seed: int) -> tuple[nn.Module, Any]:
    """A model of one image size: its own, or a smaller one where that is large."""
    for size in SIZES_PX if own > FIXED_PX else ():
        try:
            torch.manual_seed(seed)
            smaller = timm.create_model(name, img_size=size).eval()
        except (TypeError, ValueError, AssertionError, RuntimeError):
            continue  # it takes no size, or not this one
        image = torch.randn(1, 3, size, size)
        if _runs(smaller, image):
            return smaller, image
    return model, torch.randn(1, 3, own, own)


def _runs(model: nn.Module, image: Tensor) -> bool:
    try:
        with torch.no_grad():
            out = model(image)
    except (RuntimeError, AssertionError, ValueError, IndexError, ZeroDivisionError):
        return False
    return bool(torch.isfinite(out).all()) if isinstance(out, Tensor) else True


def _family(name: str) -> str:
    """The letters that a name starts with.

    >>> _family("seresnextaa101d_32x8d"), _family("vit_tiny_patch16_224")
    ('seresnextaa', 'vit')
    """
    return re.split(r"\d|_", name, maxsplit=1)[0]


def parameters() -> dict[str, int]:
    """Number of parameters of every model, counted once."""
    if CACHE.is_file():
        sizes: dict[str, int] = json.loads(CACHE.read_text("utf-8"))
        return sizes
    print("counting the parameters of timm's models, once ...", file=sys.stderr, flush=True)
    sizes = {name: _count(name) for name in all_names()}
    CACHE.parent.mkdir(exist_ok=True)
    CACHE.write_text(json.dumps(sizes), encoding="utf-8")
    return sizes


def _count(name: str) -> int:
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name)
        except (RuntimeError, NotImplementedError):  # its constructor reads values
            with torch.device("cpu"):
                model = timm.create_model(name)
    return sum(p.numel() for p in model.parameters())
