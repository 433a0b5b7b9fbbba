"""Networks that generate: adversarial, variational, autoregressive, flow and diffusion.

Each is written small after its paper, with the skip concatenations, style modulations, dilations
and embeddings of the original; widths are neither all equal nor all powers of two.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class DcganGenerator(nn.Module):
    """Radford et al. 2015: transposed convolutions from noise."""

    def __init__(self, noise: int = 20, width: int = 12) -> None:
        super().__init__()
        sizes = [noise, width * 4, width * 2, width]
        layers: list[nn.Module] = []
        for k, (a, b) in enumerate(itertools.pairwise(sizes)):
            stride, padding = (1, 0) if k == 0 else (2, 1)
            layers += [nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False)]
            layers += [nn.BatchNorm2d(b), nn.ReLU()]
        self.net = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.net(z[:, :, None, None])


class DcganDiscriminator(nn.Module):
    """Strided convolutions with spectral norm (Miyato et al. 2018) or batch norm."""

    def __init__(self, *, spectral: bool = False) -> None:
        super().__init__()
        wrap: Callable[..., nn.Module] = parametrizations.spectral_norm if spectral else _same
        self.net = nn.Sequential(
            wrap(nn.Conv2d(3, 12, 4, 2, 1)), nn.LeakyReLU(0.2),
            wrap(nn.Conv2d(12, 28, 4, 2, 1)), nn.BatchNorm2d(28), nn.LeakyReLU(0.2),
            wrap(nn.Conv2d(28, 40, 4, 2, 1)), nn.BatchNorm2d(40), nn.LeakyReLU(0.2),
            nn.Conv2d(40, 1, 4),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).flatten()


def _same(module: nn.Module) -> nn.Module:
    return module


class EqualisedLinear(nn.Module):
    """StyleGAN's linear layer: the weight is scaled by its fan-in at run time."""

    def __init__(self, inputs: int, outputs: int, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.full([outputs], bias))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.gain, self.bias)


class ModulatedConv(nn.Module):
    """StyleGAN2 (Karras et al. 2020, section 2.2): weights scaled by a style, then demodulated,
    the batch folded into the groups of one convolution."""

    def __init__(self, inputs: int, outputs: int, style: int, *, demodulate: bool = True) -> None:
        super().__init__()
        self.affine = EqualisedLinear(style, inputs, 1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.noise = nn.Parameter(torch.zeros(1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.demodulate = demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weight = self.weight[None] * self.affine(style)[:, None, :, None, None]
        if self.demodulate:
            weight = weight * (weight.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
        out = F.conv2d(
            x.reshape(1, batch * channels, height, width),
            weight.reshape(-1, channels, 3, 3), padding=1, groups=batch,
        )  # fmt: skip
        out = out.reshape(batch, -1, height, width) + self.bias[None, :, None, None]
        return F.leaky_relu(out, 0.2)


class StyleGanGenerator(nn.Module):
    """Mapping network, constant input, modulated convolutions and skips to RGB."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(
            EqualisedLinear(20, 28), nn.LeakyReLU(0.2), EqualisedLinear(28, 28), nn.LeakyReLU(0.2)
        )
        self.constant = nn.Parameter(torch.randn(1, 36, 4, 4))
        widths = [36, 36, 24, 20]
        self.convs = nn.ModuleList(ModulatedConv(a, b, 28) for a, b in itertools.pairwise(widths))
        self.to_rgb = nn.ModuleList(
            ModulatedConv(width, 3, 28, demodulate=False) for width in widths[1:]
        )

    def forward(self, z: Tensor) -> Tensor:
        z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
        style = self.mapping(z)
        x, image = self.constant.expand(z.shape[0], -1, -1, -1), None
        for conv, to_rgb in zip(self.convs, self.to_rgb, strict=True):
            x = conv(F.interpolate(x, scale_factor=2, mode="bilinear"), style)
            rgb = to_rgb(x, style)
            image = rgb if image is None else F.interpolate(image, scale_factor=2) + rgb
        assert image is not None
        return image


class AdainGenerator(nn.Module):
    """The first StyleGAN: instance norms whose scale and shift come from the style."""

    def __init__(self) -> None:
        super().__init__()
        self.mapping = nn.Sequential(nn.Linear(20, 28), nn.ReLU(), nn.Linear(28, 24))
        self.constant = nn.Parameter(torch.randn(1, 20, 4, 4))
        self.convs = nn.ModuleList(
            [nn.Conv2d(20, 36, 3, padding=1), nn.Conv2d(36, 12, 3, padding=1)]
        )
        self.styles = nn.ModuleList([nn.Linear(24, 72), nn.Linear(24, 24)])
        self.to_rgb = nn.Conv2d(12, 3, 1)

    def forward(self, z: Tensor) -> Tensor:
        style = self.mapping(z)
        x = self.constant.expand(z.size(0), -1, -1, -1)
        for conv, affine in zip(self.convs, self.styles, strict=True):
            x = F.instance_norm(conv(F.interpolate(x, scale_factor=2)))
            scale, shift = affine(style)[:, :, None, None].chunk(2, dim=1)
            x = F.leaky_relu(x * (1 + scale) + shift, 0.2)
        return self.to_rgb(x)


class Pix2Pix(nn.Module):
    """Isola et al. 2017: a U-Net of nested blocks, each concatenated with its input."""

    def __init__(self, widths: tuple[int, ...] = (12, 20, 36, 40)) -> None:
        super().__init__()
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        last = 3
        for width in widths:
            self.down.append(nn.Sequential(
                nn.Conv2d(last, width, 4, 2, 1), nn.InstanceNorm2d(width, affine=True),
                nn.LeakyReLU(0.2),
            ))  # fmt: skip
            last = width
        for width in [*widths[-2::-1], 8]:
            self.up.append(nn.Sequential(
                nn.ConvTranspose2d(last, width, 4, 2, 1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Dropout(0.5),
            ))  # fmt: skip
            last = 2 * width
        self.out = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        skips: list[Tensor] = []
        for block in self.down:
            x = block(x)
            skips.append(x)
        x = skips.pop()
        for block in self.up:
            x = block(x)
            if skips:
                x = torch.cat([x, skips.pop()], 1)
        return torch.tanh(self.out(x))


class UNet(nn.Module):
    """Ronneberger et al. 2015: cropped skips, bilinear or learned upsampling."""

    def __init__(self, *, learned: bool = True) -> None:
        super().__init__()
        self.first, self.second = _double(1, 12), _double(12, 20)
        self.bottom = _double(20, 36)
        self.learned = learned
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(36, 20, 2, 2), nn.ConvTranspose2d(20, 12, 2, 2)] if learned else []
        )
        self.third = _double(40 if learned else 56, 20)
        self.fourth = _double(24 if learned else 32, 12)
        self.out = nn.Conv2d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.first(x)
        b = self.second(F.max_pool2d(a, 2))
        c = self.bottom(F.max_pool2d(b, 2))
        c = self.third(torch.cat([_cropped(b, up := self._up(0, c)), up], 1))
        c = self.fourth(torch.cat([_cropped(a, up := self._up(1, c)), up], 1))
        return self.out(c)

    def _up(self, k: int, x: Tensor) -> Tensor:
        if self.learned:
            return self.up[k](x)
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def _double(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(),
    )  # fmt: skip


def _cropped(x: Tensor, like: Tensor) -> Tensor:
    dy, dx = (x.shape[2] - like.shape[2]) // 2, (x.shape[3] - like.shape[3]) // 2
    return x[:, :, dy : dy + like.shape[2], dx : dx + like.shape[3]]


class Vae(nn.Module):
    """Kingma and Welling 2013, convolutional; returns the picture, the mean and the variance."""

    def __init__(self, latent: int = 14) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 12, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(12, 20, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.mean, self.log_variance = nn.Linear(320, latent), nn.Linear(320, latent)
        self.into = nn.Linear(latent, 320)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(20, 12, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(12, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        code = self.encoder(x)
        mean, log_variance = self.mean(code), self.log_variance(code)
        z = mean
        if self.training:
            z = z + torch.randn_like(z) * (0.5 * log_variance).exp()
        image = self.decoder(self.into(z).view(-1, 20, 4, 4))
        return torch.sigmoid(image), mean, log_variance


class VqVae(nn.Module):
    """van den Oord et al. 2017: the nearest entry of a codebook, gradients straight through."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 20, 4, 2, 1), nn.ReLU(), nn.Conv2d(20, 12, 1))
        self.codes = nn.Embedding(30, 12)
        self.decoder = nn.Sequential(
            nn.Conv2d(12, 28, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(28, 1, 4, 2, 1)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z = self.encoder(x)
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        codes = self.codes.weight
        distance = flat.pow(2).sum(1, keepdim=True) - 2 * flat @ codes.t() + codes.pow(2).sum(1)
        nearest = distance.argmin(1)
        quantised = self.codes(nearest).view(z.shape[0], *z.shape[2:], -1).permute(0, 3, 1, 2)
        return self.decoder(z + (quantised - z).detach()), nearest


class WaveNet(nn.Module):
    """van den Oord et al. 2016: dilated causal convolutions, gates, residuals and skips."""

    def __init__(self, *, local: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, 20)
        self.filters, self.residuals, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        self.conditions = nn.ModuleList()
        for k in range(4):
            self.filters.append(nn.Conv1d(20, 2 * 28, 2, dilation=2**k))
            self.conditions.append(nn.Conv1d(10, 2 * 28, 1, bias=False))
            self.residuals.append(nn.Conv1d(28, 20, 1))
            self.skips.append(nn.Conv1d(28, 36, 1))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(36, 40, 1), nn.ReLU(), nn.Conv1d(40, 32, 1))

    def forward(self, samples: Tensor, mel: Tensor) -> Tensor:
        x, total = self.embedding(samples).transpose(1, 2), 0
        mel = mel.repeat_interleave(4, dim=2)
        for k, (filters, condition) in enumerate(zip(self.filters, self.conditions, strict=True)):
            gates = filters(F.pad(x, (2**k, 0))) + condition(mel)
            gate, value = gates.chunk(2, dim=1)
            y = torch.sigmoid(gate) * torch.tanh(value)
            total = total + self.skips[k](y)
            x = (x + self.residuals[k](y)) * math.sqrt(0.5)
        return self.end(total)


class PixelCnn(nn.Module):
    """van den Oord et al. 2016: convolutions whose weights are masked."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 20, 5, padding=2), nn.Conv2d(20, 28, 3, padding=1)
        self.out = nn.Conv2d(28, 8, 1)
        for conv in (self.first, self.second):
            mask = torch.ones_like(conv.weight)
            middle = conv.kernel_size[0] // 2
            mask[:, :, middle, middle + 1 :] = 0
            mask[:, :, middle + 1 :] = 0
            conv.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.first, self.second):
            x = F.relu(F.conv2d(x, conv.weight * conv.mask, conv.bias, padding=conv.padding))
        return self.out(x)


class RealNvp(nn.Module):
    """Dinh et al. 2016: affine coupling layers on halves of the features, with log determinants."""

    def __init__(self, features: int = 12) -> None:
        super().__init__()
        self.nets = nn.ModuleList(
            nn.Sequential(
                nn.Linear(features // 2, 20 + 8 * k), nn.Tanh(), nn.Linear(20 + 8 * k, features)
            )
            for k in range(3)
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total = x.new_zeros(x.shape[0])
        for net in self.nets:
            a, b = x.chunk(2, dim=1)
            scale, shift = net(a).chunk(2, dim=1)
            b = b * torch.exp(torch.tanh(scale)) + shift
            total = total + torch.tanh(scale).sum(1)
            x = torch.cat([b, a], 1)
        return x, total


class ResBlock(nn.Module):
    """A diffusion U-Net's block: group norms, the time embedding as scale and shift."""

    def __init__(self, inputs: int, outputs: int, time: int) -> None:
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(4, inputs), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time = nn.Linear(time, 2 * outputs)
        self.norm2, self.conv2 = nn.GroupNorm(4, outputs), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        y = self.norm2(y) * (scale + 1) + shift
        return self.skip(x) + self.conv2(F.silu(y))


class SpatialAttention(nn.Module):
    """Self-attention over pixels with heads inside one qkv convolution."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, channels)
        self.qkv, self.out = nn.Conv2d(channels, channels * 3, 1), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        q, k, v = (
            part.reshape(batch, self.heads, channels // self.heads, height * width)
            for part in self.qkv(self.norm(x)).chunk(3, dim=1)
        )
        weights = torch.einsum("bhcn,bhcm->bhnm", q * (channels // self.heads) ** -0.5, k)
        y = torch.einsum("bhnm,bhcm->bhcn", weights.softmax(-1), v)
        return x + self.out(y.reshape(batch, channels, height, width))


class DiffusionUNet(nn.Module):
    """Ho et al. 2020: time embedding, residual blocks, attention, skip concatenations."""

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(24, 40), nn.SiLU(), nn.Linear(40, 40))
        self.into = nn.Conv2d(3, 20, 3, padding=1)
        self.down = nn.ModuleList(
            [ResBlock(20, 20, 40), ResBlock(20, 28, 40), ResBlock(28, 36, 40)]
        )
        self.shrink = nn.ModuleList([nn.Conv2d(20, 20, 3, 2, 1), nn.Conv2d(28, 28, 3, 2, 1)])
        self.middle = nn.ModuleList([ResBlock(36, 36, 40), SpatialAttention(36, 3)])
        self.up = nn.ModuleList([ResBlock(72, 28, 40), ResBlock(56, 20, 40), ResBlock(40, 20, 40)])
        self.grow = nn.ModuleList(
            [nn.Conv2d(28, 28, 3, padding=1), nn.Conv2d(20, 20, 3, padding=1)]
        )
        self.out = nn.Sequential(nn.GroupNorm(4, 20), nn.SiLU(), nn.Conv2d(20, 3, 3, padding=1))

    def forward(self, x: Tensor, steps: Tensor) -> Tensor:
        frequencies = torch.exp(-math.log(1e4) * torch.arange(12) / 12).to(x.dtype)
        angles = steps[:, None].to(x.dtype) * frequencies
        time = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        x, skips = self.into(x), []
        for k, block in enumerate(self.down):
            x = block(x, time)
            skips.append(x)
            x = self.shrink[k](x) if k < len(self.shrink) else x
        x = self.middle[1](self.middle[0](x, time))
        for k, block in enumerate(self.up):
            x = block(torch.cat([x, skips.pop()], 1), time)
            if k < len(self.grow):
                x = self.grow[k](F.interpolate(x, scale_factor=2, mode="nearest"))
        return self.out(x)


def _images(*shape: int) -> Callable[[], Any]:
    return lambda: torch.randn(2, *shape)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "dcgan_generator": (DcganGenerator, _images(20)),
    "dcgan_discriminator": (DcganDiscriminator, _images(3, 32, 32)),
    "sngan_discriminator": (lambda: DcganDiscriminator(spectral=True), _images(3, 32, 32)),
    "stylegan": (AdainGenerator, _images(20)),
    "stylegan2": (StyleGanGenerator, _images(20)),
    "pix2pix": (Pix2Pix, _images(3, 32, 32)),
    "unet": (UNet, _images(1, 16, 16)),
    "unet_bilinear": (lambda: UNet(learned=False), _images(1, 18, 18)),
    "vae": (Vae, _images(1, 16, 16)),
    "vqvae": (VqVae, _images(1, 12, 12)),
    "wavenet": (WaveNet, lambda: (torch.randint(0, 32, (2, 16)), torch.randn(2, 10, 4))),
    "pixelcnn": (PixelCnn, _images(1, 8, 8)),
    "realnvp": (RealNvp, _images(12)),
    "diffusion": (DiffusionUNet, lambda: (torch.randn(2, 3, 16, 16), torch.tensor([3, 70]))),
}


def names() -> list[str]:
    return list(MODELS)


def build(name: str, seed: int) -> tuple[nn.Module, Any]:
    make, inputs = MODELS[name]
    torch.manual_seed(seed)
    return make().eval(), inputs()
