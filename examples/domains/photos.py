"""ImageNet classification: EfficientNet-Lite0 with its trained weights, on photos without labels.

`python examples/domains/photos.py` needs what `benchmarks/reconstruction.py` names. No package has
labelled ImageNet, so what is measured is how often a model's first choice among the 1,000 classes
is the dense model's, on crops of photos that nothing was fitted to. That tells how much of the
model is left, not how accurate it is. Recovery fits the weights that are left to the dense layers.
"""

from __future__ import annotations

import torch
from comparison import Cut, Domain, compare, show
from sources import ROOT
from torch import Tensor, nn

import secateur as sc
from secateur.oneshot import reconstruct_

BUDGET = "macs=80%"
CROPS_TEST = 16  # of each of six photos


def photo(name: str) -> Tensor:
    """Of a package: RGB [height, width, 3], uint8."""
    import numpy
    from PIL import Image
    from reconstruction import NEEDS, places

    path = next((path for place in places() for path in sorted(place.rglob(f"{name}.*"))), None)
    if path is None:
        raise FileNotFoundError(f"no photo {name}; {NEEDS}")
    return torch.from_numpy(numpy.array(Image.open(path).convert("RGB")))


def domain(name: str = "photos", seed: int = 0) -> Domain:
    """The trained classifier; at four fifths of its multiply-accumulates, without labels."""
    from efficientnet_lite0 import trained
    from reconstruction import SEEN, UNSEEN, crops

    dense, _ = trained()
    generator = torch.Generator().manual_seed(seed)
    seen = torch.cat([crops(each, 1, generator) for each in SEEN]).split(9)
    test = torch.cat([crops(each, CROPS_TEST, generator) for each in UNSEEN]).split(16)
    plans: dict[int, sc.Plan] = {}

    @torch.no_grad()
    def choices(model: nn.Module) -> Tensor:
        return torch.cat([model(part).argmax(1) for part in test])

    wanted = choices(dense)

    def cut(criterion: str, seed: int) -> Cut:
        result = sc.prune(
            dense, test[0][:1], budget=BUDGET, criterion=criterion, data=list(seen), seed=seed,
            selector="global", normalise="none",
        )  # fmt: skip
        plans[id(result.model)] = result.plan
        error = result.proof.max_abs_error if result.proof else None
        return Cut(result.model, result.before, result.after, error)

    return Domain(
        name, "agreement with dense", dense, test[0][:4],
        lambda model: reconstruct_(model, dense, plan=plans[id(model)], data=list(seen)),
        lambda model: float((choices(model) == wanted).double().mean()),
        BUDGET, "output_error", cut=cut,
    )  # fmt: skip


if __name__ == "__main__":
    print(f"photos: those of {ROOT / 'benchmarks' / 'reconstruction.py'}")
    show(compare(domain()))
