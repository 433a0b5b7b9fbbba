"""Silero VAD at 16 kHz: the network of the package silero-vad with its trained weights.

Every 512 samples (32 ms), with 64 before them, become a spectrum, four convolutions and a step of
an LSTM; out comes how likely they hold speech. Whole clips go through at once: [N, samples] to
logits [N, samples // 512]. Layer names are the package's, but for those of the LSTM, which is
torch's own over all steps.

Source: Silero Team, Silero VAD, 2024; the file `tinygrad_model.py` of the package, MIT licence.
"""

from __future__ import annotations

from safetensors.torch import load_file
from sources import package
from torch import Tensor, nn
from torch.nn import functional

FRAME, CONTEXT = 512, 64
BINS = 129


class SileroVad(nn.Module):
    """309,633 parameters; 66,048 of them are a fixed Fourier transform, as a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 2 * BINS, 256, stride=128, bias=False)
        self.conv1 = nn.Conv1d(BINS, 128, 3, padding=1)
        self.conv2 = nn.Conv1d(128, 64, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(64, 64, 3, stride=2, padding=1)
        self.conv4 = nn.Conv1d(64, 128, 3, padding=1)
        self.lstm = nn.LSTM(128, 128, batch_first=True)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, clips: Tensor) -> Tensor:
        count = clips.shape[0]
        padded = functional.pad(clips, (CONTEXT, 0))
        frames = padded.unfold(1, CONTEXT + FRAME, FRAME).flatten(0, 1)
        waves = functional.pad(frames[:, None], (0, CONTEXT), mode="reflect")
        real, imaginary = self.stft_conv(waves).split(BINS, 1)
        x = (real.square() + imaginary.square() + 1e-12).sqrt()
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = conv(x).relu()
        steps = self.lstm(x.squeeze(2).unflatten(0, (count, -1)))[0].relu()
        logits: Tensor = self.final_conv(steps.transpose(1, 2)).squeeze(1)
        return logits


def trained() -> SileroVad:
    """With the package's weights. Raises: ModuleNotFoundError that names the package."""
    file = package("silero_vad", "silero-vad") / "data" / "silero_vad_16k.safetensors"
    model = SileroVad()
    state = {
        f"lstm.{name.partition('.')[2]}_l0" if name.startswith("lstm_cell") else name: tensor
        for name, tensor in load_file(file).items()
    }
    model.load_state_dict(state)
    model.stft_conv.requires_grad_(False)
    return model.eval()
