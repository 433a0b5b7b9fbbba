"""Task 7: sparsity-based pruning of a CNN. A group lasso makes whole channels small while the model
trains, then the smallest are really cut. Last, single weights: 80 % of them zero, shapes as before.
"""

from handwritten_digits import accuracy, example, fit, trained_cnn

import secateur as sc
from secateur.masks import fold_, mask_, sparsity
from secateur.train import GroupLasso

plain, sparse = trained_cnn(), trained_cnn()
fit(sparse, companions=[GroupLasso(sc.trace(sparse, example), 2e-3)])
for name, model in {"without": plain, "group lasso": sparse}.items():
    cut = sc.prune(model, example, budget="macs=40%", criterion="l2", selector="global")
    print(f"{name}: {accuracy(model):.1%}, {cut.before.params:,} -> {cut.after.params:,}", end=" ")
    print(f"parameters: {accuracy(cut.model):.1%}, recovered {accuracy(fit(cut.model)):.1%}")
mask_(plain, sparsity=0.8, criterion="l1")  # trained on, what is masked stays zero
masked = accuracy(fold_(fit(plain)) or plain)
print(f"masks: {sum(row.zeros for row in sparsity(plain)):,} weights are zero: {masked:.1%}")
