"""ESRGAN-slim, twice the size: the generator of `@upscalerjs/esrgan-slim` with its trained weights.

A residual dense network: blocks whose convolutions read everything made before them, all of it
added to the first features, then a larger picture. The weights are TensorFlow.js shards: float32,
kernels [height, width, in, out]. Layer names are theirs. Pictures: RGB [N, 3, H, W] in [0, 255].

Source: X. Wang et al., ESRGAN, ECCV workshops 2018, arXiv 1809.00219; Y. Zhang et al., Residual
Dense Network for Image Super-Resolution, CVPR 2018, arXiv 1802.08797.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import numpy as np
import torch
from sources import ROOT, folder
from torch import Tensor, nn
from torch.nn import functional

BLOCKS, WIDTH, GROWTH = 2, 64, 4
PLACE = ROOT / "runs" / "inputs" / "esrgan-slim"
COMMAND = (
    f"mkdir -p {PLACE.relative_to(ROOT)} && cd {PLACE.relative_to(ROOT)} && "
    "npm pack @upscalerjs/esrgan-slim && tar xzf *.tgz; or set ESRGAN_SLIM to the package's folder"
)


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class Generator(nn.Module):
    """A picture of twice the width and height; 222,043 parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.F_m1, self.F_0 = conv(3, WIDTH, 3), conv(WIDTH, WIDTH, 3)
        for block in range(1, BLOCKS + 1):
            self.add_module(f"F_{block}_1", conv(WIDTH, GROWTH, 3))
            self.add_module(f"LFF_{block}", conv(WIDTH + GROWTH, WIDTH, 1))
        self.GFF_1, self.GFF_2 = conv(BLOCKS * WIDTH, WIDTH, 1), conv(WIDTH, WIDTH, 3)
        self.UPN1, self.UPN2, self.UPN3 = conv(WIDTH, 64, 5), conv(64, 32, 3), conv(32, 12, 3)
        self.SR = conv(12, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.F_m1(x)
        features, made = self.F_0(first), []
        for block in range(1, BLOCKS + 1):
            grown = getattr(self, f"F_{block}_1")(features).relu()
            features = getattr(self, f"LFF_{block}")(torch.cat([features, grown], 1)) + features
            made.append(features)
        out = self.GFF_2(self.GFF_1(torch.cat(made, 1))) + first
        out = self.UPN3(self.UPN2(self.UPN1(out).relu()).relu())
        picture: Tensor = self.SR(functional.interpolate(out, scale_factor=2, mode="nearest"))
        return picture


def trained() -> Generator:
    """With the package's weights. Raises: FileNotFoundError that says how to get them."""
    place = Path(os.environ.get("ESRGAN_SLIM") or PLACE / "package") / "models" / "x2"
    manifest = json.loads((folder(place, COMMAND) / "model.json").read_text(encoding="utf-8"))
    model, tensors = Generator(), {}
    for shards in manifest["weightsManifest"]:
        data = b"".join((place / path).read_bytes() for path in shards["paths"])
        offset = 0
        for weight in shards["weights"]:
            count = math.prod(weight["shape"])
            array = np.frombuffer(data, "<f4", count, offset).reshape(weight["shape"])
            offset += 4 * count
            layer, _, kind = weight["name"].rpartition("/")
            tensor = torch.from_numpy(array.copy())
            name = f"{layer}.{'weight' if kind == 'kernel' else 'bias'}"
            tensors[name] = tensor.permute(3, 2, 0, 1).contiguous() if kind == "kernel" else tensor
    model.load_state_dict(tensors)
    return model.eval()
