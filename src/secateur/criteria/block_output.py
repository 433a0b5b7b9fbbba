"""Change of the stream: ``I_b = 1 - E_(x,t) [ x_in . x_out / (|x_in| |x_out|) ]`` of a block.

One minus the mean cosine similarity of what goes into a residual block and what comes out, over
the positions t of the calibration samples x. A block that hardly turns the stream can go.

Source: Men et al., ShortGPT: Layers in Large Language Models are More Redundant Than You Expect,
Findings of ACL 2025, Block Influence, equation 1, arXiv 2403.03853. Deviation: positions are
whatever is not the width of the stream, so pixels of a convolution's as well as tokens.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

NEEDS = frozenset({"stream"})
POWER = 1.0


def change(given_PW: Tensor, returned_PW: Tensor) -> Float[Tensor, " positions"]:
    """One number for each position of a run: P positions, W the width of the stream.

    >>> import torch
    >>> change(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([0., 1.], dtype=torch.float64)
    """
    similar_P = nn.functional.cosine_similarity(given_PW.double(), returned_PW.double(), dim=1)
    return 1 - similar_P
