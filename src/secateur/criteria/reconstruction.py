"""Reconstruction: ``I_u = sum_m w_um^T ((H^-1)_uu)^-1 w_um``, the next layers' least error.

The squared error of what the next layer returns when unit u goes and the layer's other weights make
up for it as well as a linear layer can, on calibration data: H is the second moment of the inputs,
w_um the weights from the unit's features to output m. `oneshot.reconstruct_` then does make up.

Source: Kurtic et al., ZipLM: Inference-Aware Structured Pruning of Language Models, NeurIPS 2023,
equation 2, arXiv 2302.04089, after Hassibi et al., Optimal Brain Surgeon, ICNN 1993; channels of
convolutions by least squares: He et al., Channel Pruning for Accelerating Very Deep Neural
Networks, ICCV 2017, arXiv 1707.06168. Deviations: relative to the squared size of the layer's
outputs, so that layers compare, and summed over all layers that read the group; every unit is
judged with all others there, where ZipLM removes one and judges again; a ridge on H, whose entries
off the diagonal are scaled by N / (N + F) for N positions and F inputs, because what few samples
have in common says little. A group that no weight reads, such as the width of queries and keys, has
no score and is left whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

NEEDS = frozenset({"weights", "input_moments"})


def error(weights_URM: Tensor, residuals_URR: Tensor) -> Tensor:
    """The error of one layer per unit: R features of each unit, M outputs.

    weights_URM: from a unit's features. residuals_URR: the moment of what the other features cannot
    take over of a unit's.

    >>> error(torch.tensor([[[3.0]], [[1.0]]]), torch.tensor([[[2.0]], [[4.0]]])).tolist()
    [18.0, 4.0]
    """
    return torch.einsum("urm,urs,usm->u", weights_URM, residuals_URR, weights_URM)
