"""Task 5: activation pruning of a CNN. The channels go that are small on average over real images
("activation_mean"), or zero for most of them ("apoz"); neither looks at the weights.
"""

from handwritten_digits import accuracy, batches, example, fit, trained_cnn

import secateur as sc

dense, ranked = trained_cnn(), {"selector": "global", "normalise": "none", "data": batches}
print(f"dense: accuracy {accuracy(dense):.1%}")
for criterion in ("activation_mean", "apoz", "random"):
    result = sc.prune(dense, example, budget="macs=60%", criterion=criterion, **ranked)
    cut, recovered = accuracy(result.model), accuracy(fit(result.model))
    print(f"{criterion}: {result.before.params:,} -> {result.after.params:,} parameters,", end=" ")
    print(f"accuracy {cut:.1%}, recovered {recovered:.1%}")
