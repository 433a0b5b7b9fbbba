"""Task 3: layer pruning of an MLP. Four of eight residual blocks go: those that change the stream
the least ("block_output"). Beside it, four at random.
"""

import torch
from handwritten_digits import accuracy, batches, example, fit
from torch import nn

import secateur as sc


class Block(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


torch.manual_seed(0)
blocks = [Block(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64)) for _ in range(8)]
dense = fit(nn.Sequential(nn.Flatten(), *blocks, nn.Linear(64, 10)), epochs=8)
print(f"dense: {len(dense)} layers, accuracy {accuracy(dense):.1%}")
for criterion in ("l2", "random"):
    result = sc.prune(dense, example, blocks=4, criterion=criterion, data=batches)
    cut, recovered = accuracy(result.model), accuracy(fit(result.model))
    print(f"{result.plan.settings['block_criterion']}: {len(result.model)} layers,", end=" ")
    print(f"{result.before.params:,} -> {result.after.params:,} parameters,", end=" ")
    print(f"accuracy {cut:.1%}, recovered {recovered:.1%}")
