"""Task 4: filter pruning of a CNN by the filters' L1 norms, half of each layer, and no layer below
five filters. Beside it, half of them at random.
"""

from handwritten_digits import accuracy, example, fit, trained_cnn
from torch import nn

import secateur as sc

dense = trained_cnn()
print(f"dense: accuracy {accuracy(dense):.1%}")
for criterion in ("l1", "random"):
    small = sc.prune(dense, example, keep=0.5, min_units=5, criterion=criterion).model
    filters = [layer.out_channels for layer in small if isinstance(layer, nn.Conv2d)]
    cut, recovered = accuracy(small), accuracy(fit(small))
    print(f"{criterion}: filters {filters}, accuracy {cut:.1%}, recovered {recovered:.1%}")
