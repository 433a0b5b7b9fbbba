"""Task 6: importance-based pruning of a CNN: what the loss would lose without a unit, by the first
order ("taylor") and by the Fisher information ("fisher"), over all layers together.
"""

from handwritten_digits import accuracy, batches, example, fit, trained_cnn
from torch.nn.functional import cross_entropy

import secateur as sc

dense, loss = trained_cnn(), {"data": list(batches)[:6], "loss_fn": cross_entropy}
print(f"dense: accuracy {accuracy(dense):.1%}")
for criterion in ("taylor", "fisher", "random"):
    how = {"criterion": criterion, "selector": "global", "normalise": "none"}
    result = sc.prune(dense, example, budget="macs=50%", **how, **loss)
    cut, recovered = accuracy(result.model), accuracy(fit(result.model))
    print(f"{criterion}: {result.before.macs:,} -> {result.after.macs:,} MACs,", end=" ")
    print(f"accuracy {cut:.1%}, recovered {recovered:.1%}")
