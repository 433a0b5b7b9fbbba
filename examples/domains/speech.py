"""Recurrent speech: Silero's voice activity detector, judged by the F1 of its frames in noise.

`python examples/domains/speech.py` needs `pip install --no-deps silero-vad` and
`apt-get install pocketsphinx-testdata`: 47 seconds by several speakers. A frame of 32 ms holds
speech where the clean recording is loud; the network hears it with noise. It is trained on the
LibriVox clips after the cut, and tested on the other recordings, of other speakers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from comparison import Domain, compare, show
from silero import FRAME, trained
from sklearn.metrics import f1_score
from sources import folder
from torch import Tensor, nn

import secateur as sc
from secateur.train import TensorBatches

PLACE = Path("/usr/share/pocketsphinx/test/data")
STEPS = 96  # frames of a piece, three seconds
PIECES = 128
LOUD = 0.05  # of the loudest frames, where speech begins
EPOCHS = 5


def recording(path: Path) -> Tensor:
    """Samples in [-1, 1] at 16 kHz, whole frames of them."""
    data = path.read_bytes()[44 if path.suffix == ".wav" else 0 :]
    samples = torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32)) / 2**15
    return samples[: len(samples) // FRAME * FRAME]


def spoken(clean: Tensor) -> Tensor:
    """Which frames of a clean recording hold speech: the majority of five around each is loud."""
    loud = clean.view(-1, FRAME).square().mean(1).sqrt()
    over = (loud > LOUD * loud.quantile(0.95)).float()
    around = nn.functional.pad(over[None], (2, 2), mode="reflect").unfold(1, 5, 1)
    return (around.mean(2)[0] > 0.5).float()


def noisy(clean: Tensor, generator: torch.Generator) -> Tensor:
    """With white and with deep noise, together 0 to 10 dB below the recording."""
    white, steps = torch.randn(2, len(clean), generator=generator)
    deep = steps.cumsum(0)
    deep = deep - nn.functional.avg_pool1d(deep[None], 2001, 1, 1000, count_include_pad=False)[0]
    share, decibel = torch.rand(2, generator=generator).tolist()
    noise = share * white / white.std() + (1 - share) * deep / deep.std()
    return clean + noise * clean.std() / noise.std() * 10 ** (-decibel / 2)


def pieces(recordings: list[Tensor], generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noisy samples [PIECES, STEPS * FRAME] from anywhere of recordings, each after a pause, and
    whether their frames hold speech [PIECES, STEPS]."""
    pause = torch.zeros(STEPS // 4 * FRAME)
    clean = torch.cat([torch.cat([pause, each]) for each in recordings])
    said = torch.cat([torch.cat([pause[::FRAME], spoken(each)]) for each in recordings])
    starts = torch.randint(len(said) - STEPS, (PIECES,), generator=generator).tolist()
    heard = noisy(clean, generator)
    found = []
    for count, start in enumerate(starts):
        if count % 16 == 0:
            heard = noisy(clean, generator)
        found.append(heard[start * FRAME : (start + STEPS) * FRAME])
    return torch.stack(found), torch.stack([said[start : start + STEPS] for start in starts])


def domain(name: str = "speech", seed: int = 0) -> Domain:
    """The detector as it ships; with two fifths of its parameters."""
    paths = sorted(folder(PLACE, "apt-get install pocketsphinx-testdata").rglob("*.*"))
    paths = [path for path in paths if path.suffix in (".wav", ".raw")]
    own = [recording(path) for path in paths if path.parent.name == "librivox"]
    others = [recording(path) for path in paths if path.parent.name != "librivox"]
    generator = torch.Generator().manual_seed(seed)
    batches = TensorBatches(*pieces(own, generator), batch_size=16, seed=seed)
    heard, said = pieces(others, generator)
    loss_fn = nn.BCEWithLogitsLoss()

    def train(model: nn.Module) -> None:
        settings = sc.FinetuneSettings(
            epochs=EPOCHS, optimizer="adamw", lr=1e-3, schedule="cosine", clip_norm=1.0, seed=seed,
            progress=False,
        )  # fmt: skip
        sc.finetune(model, batches, settings=settings, loss_fn=loss_fn)

    @torch.no_grad()
    def f1(model: nn.Module) -> float:
        return float(f1_score(said.flatten().numpy(), (model(heard) > 0).flatten().numpy()))

    options = {"data": batches, "loss_fn": loss_fn, "selector": "uniform"}
    return Domain(
        name, "F1", trained(), heard[:8], train, f1, "params=40%", "taylor", options
    )  # fmt: skip


if __name__ == "__main__":
    show(compare(domain()))
