"""`digits`: 1,797 handwritten digits of 8 x 8 pixels that ship inside scikit-learn.

Source: E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI 1998.
"""

from __future__ import annotations

import torch

from secateur.zoo.data import Data, split
from secateur.zoo.loaded import require

_DARKEST = 16.0
_SHARES = (0.1, 0.25)


def load(rest: str, *, seed: int) -> Data:
    """65 % train, 10 % validation, 25 % test; pixels scaled to [0, 1], float32 [N, 1, 8, 8]."""
    if rest:
        raise ValueError(f"data 'digits' takes nothing after a colon, got {rest!r}")
    sklearn = require("sklearn.datasets", package="scikit-learn", extra="dev")
    images, labels = sklearn.load_digits(return_X_y=True)
    inputs = torch.from_numpy(images).to(torch.float32).div_(_DARKEST).reshape(-1, 1, 8, 8)
    train, validation, test = split(
        inputs, torch.from_numpy(labels).to(torch.int64), shares=_SHARES, seed=seed
    )
    about = "1,797 handwritten digits, 8 x 8 pixels, 10 classes (scikit-learn, UCI 1998)"
    return Data("digits", train, validation, test, (1, 8, 8), 10, about)
