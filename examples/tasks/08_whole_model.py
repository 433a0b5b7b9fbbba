"""Task 8: compress a whole model: prune, recover, save; then load it again from its folder, which
holds safetensors, the plan and checksums, and no pickle.
"""

from pathlib import Path

import torch
from handwritten_digits import accuracy, cnn, example, fit, trained_cnn

import secateur as sc

dense = trained_cnn()
for criterion in ("l2", "random"):
    result = sc.prune(dense, example, budget="size=25%", criterion=criterion, selector="global")
    sc.save(fit(result.model), f"runs/small_{criterion}", plan=result.plan)
    again = sc.load(f"runs/small_{criterion}", cnn).eval()
    assert torch.equal(again(example), result.model.eval()(example))
    size = sum(
        path.stat().st_size for path in Path(f"runs/small_{criterion}").glob("*.safetensors")
    )
    print(f"{criterion}: {result.before.params:,} -> {result.after.params:,} parameters,", end=" ")
    print(f"{size:,} bytes, accuracy {accuracy(dense):.1%} -> {accuracy(again):.1%}")
