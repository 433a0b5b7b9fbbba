"""How dense each layer of a sparse network is: thin layers more, thick ones less.

``density_l ~ (sum of the dimensions of layer l) / (product of them)``, scaled so that the whole has
the wanted sparsity; layers that would be more than dense are left dense.

Source: Mocanu et al., Scalable training of artificial neural networks with adaptive sparse
connectivity, Nature Communications 2018, equation 3, arXiv 1707.04780; with the kernel's dimensions
Evci et al., Rigging the Lottery, ICML 2020, section 3(1), arXiv 1911.11134.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from secateur.masks.targets import targets


def erdos_renyi(model: nn.Module, *, sparsity: float, skip: Sequence[str] = ()) -> dict[str, float]:
    """The sparsity of each weight by name, for `mask_(model, sparsity=...)`.

    Raises: ValueError for a sparsity outside [0, 1).

    >>> model = nn.Sequential(nn.Linear(100, 10), nn.Linear(10, 2))
    >>> {name: round(share, 3) for name, share in erdos_renyi(model, sparsity=0.9).items()}
    {'0.weight': 0.908, '1.weight': 0.498}
    """
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity is the share of zeros, in [0, 1), not {sparsity}")
    shapes = {t.name: tuple(t.parameter.shape) for t in targets(model, skip=skip)}
    weights = {t.name: t.parameter.numel() for t in targets(model, skip=skip)}
    budget = (1 - sparsity) * sum(weights.values())
    dense: set[str] = set()
    while True:
        left = budget - sum(weights[name] for name in dense)
        raw = {name: sum(shape) for name, shape in shapes.items() if name not in dense}
        scale = left / max(sum(raw.values()), 1)
        full = {name for name, kept in raw.items() if kept * scale > weights[name]}
        if not full:
            break
        dense |= full
    return {
        name: 0.0 if name in dense else 1 - raw[name] * scale / weights[name] for name in shapes
    }
