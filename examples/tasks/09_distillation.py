"""Task 9: pruning with distillation. The dense model is the teacher: the pruned one learns its
softened answers as well as the labels. Beside it, plain fine-tuning in the same number of steps.
"""

from handwritten_digits import accuracy, example, fit, trained_cnn
from torch.nn.functional import cross_entropy

import secateur as sc
from secateur.train import Logits, distilled

dense = trained_cnn()
print(f"dense: accuracy {accuracy(dense):.1%}")
follow = distilled(cross_entropy, dense, terms=[Logits(temperature=4.0)])
for criterion in ("l2", "random"):
    result = sc.prune(dense, example, budget="macs=30%", criterion=criterion)
    again = sc.cut(dense, result.plan)
    plain, taught = fit(result.model), fit(again, objective=follow)
    print(f"{criterion}: {result.before.macs:,} -> {result.after.macs:,} MACs,", end=" ")
    print(f"plain {accuracy(plain):.1%}, distilled {accuracy(taught):.1%}")
