"""One torchvision model of each family: two cuts of every free group, cut == mask in float64.

`benchmarks/zoo.py` runs all zoos; these are the ones to run after a change of a rule.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

MODELS = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 "
    "maxvit_t mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 "
    "resnet50 resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t swin_v2_t vgg11_bn vit_b_32"
).split()


@pytest.mark.zoo
@pytest.mark.parametrize("name", MODELS)
def test_half_and_random_shares_cut_equals_masked(name: str) -> None:
    from zoo_cuts import passed
    from zoo_run import measure

    line = measure("torchvision", name, seed=0, cuts=("half", "random0"))
    assert "error" not in line, line["error"]
    assert not line["unknown_ops"]
    for cut in line["cuts"].values():
        assert passed(cut), cut
        assert cut["groups_cut"] > 0 and cut["checked"] > 0
        assert cut["effect"] > 1e-3  # otherwise equality would say nothing
