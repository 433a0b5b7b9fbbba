"""Image generation: ESRGAN-slim's generator makes photos twice as wide and high, judged by PSNR.

`python examples/domains/superresolution.py` says what it needs when it is missing. Pieces of photos
are made half as large and given to the generator. Recovery follows the dense generator's pictures,
so what the GAN had learnt to draw is the aim; nothing is trained towards the photos themselves.
"""

from __future__ import annotations

import torch
from comparison import Domain, compare, show
from esrgan_slim import trained
from photos import photo
from torch import Tensor, nn
from torch.nn import functional

import secateur as sc
from secateur.train import Outputs, TensorBatches, distilled

SIDE = 96  # of a piece for training
SIDE_TEST = 256
PIECES = 12  # of each photo
EDGE = 4  # pixels that do not count, as is usual: the network saw nothing beyond them
EPOCHS = 4


def halved(large: Tensor) -> Tensor:
    """By bicubic interpolation, as 8-bit pictures are."""
    small = functional.interpolate(large, scale_factor=0.5, mode="bicubic", antialias=True)
    return small.clamp(0, 255).round()


def pieces(name: str, count: int, generator: torch.Generator) -> Tensor:
    """Squares from anywhere of a photo [count, 3, SIDE, SIDE], half of them mirrored."""
    whole, found = photo(name).permute(2, 0, 1)[None].float(), []
    height, width = whole.shape[2:]
    for _ in range(count):
        down, right, mirrored = torch.rand(3, generator=generator).tolist()
        top, left = int(down * (height - SIDE)), int(right * (width - SIDE))
        piece = whole[:, :, top : top + SIDE, left : left + SIDE]
        found.append(piece.flip(3) if mirrored < 0.5 else piece)
    return torch.cat(found)


def psnr(found: Tensor, wanted: Tensor) -> float:
    """Peak signal to noise, dB, of pictures in [0, 255] without their edges."""
    inner = slice(EDGE, -EDGE)
    error = (found.clamp(0, 255) - wanted)[:, :, inner, inner].square().mean()
    return float(10 * torch.log10(255**2 / error))


def domain(name: str = "super-resolution", seed: int = 0) -> Domain:
    """The generator with its trained weights; at half of its multiply-accumulates."""
    from reconstruction import SEEN, UNSEEN

    dense = trained()
    generator = torch.Generator().manual_seed(seed)
    large = torch.cat([pieces(each, PIECES, generator) for each in SEEN])
    small = halved(large)
    test = [photo(each).permute(2, 0, 1)[None].float() for each in UNSEEN]
    test = [whole[:, :, :SIDE_TEST, :SIDE_TEST] for whole in test]
    batches = TensorBatches(small, large, batch_size=16, seed=seed)
    objective = distilled(None, dense, terms=[Outputs(1.0)], hard=0.0)

    def train(model: nn.Module) -> None:
        settings = sc.FinetuneSettings(
            epochs=EPOCHS, optimizer="adamw", lr=1e-3, schedule="cosine", warmup=0.1, seed=seed,
            clip_norm=1e3, progress=False,
        )  # fmt: skip
        sc.finetune(model, batches, settings=settings, objective=objective)

    @torch.no_grad()
    def measure(model: nn.Module) -> float:
        return sum(psnr(model(halved(whole)), whole) for whole in test) / len(test)

    calibration = list(TensorBatches(small, large, batch_size=8, seed=seed))[:8]
    options = {"data": calibration, "selector": "global", "normalise": "none"}
    return Domain(
        name, "PSNR, dB", dense, small[:1], train, measure, "macs=50%", "output_error", options
    )


if __name__ == "__main__":
    show(compare(domain()))
