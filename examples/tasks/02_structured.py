"""Task 2: structured pruning of a CNN. Whole channels go, everything coupled with them goes too,
and the proof compares the smaller model with the original by numbers. Beside it, random channels.
"""

from handwritten_digits import accuracy, example, fit, trained_cnn

import secateur as sc

dense, ranked = trained_cnn(), {"selector": "global", "normalise": "none"}
print(f"dense: accuracy {accuracy(dense):.1%}")
for criterion in ("l2", "random"):
    result = sc.prune(dense, example, budget="macs=50%", criterion=criterion, **ranked)
    print(f"{criterion}: {result.before.params:,} -> {result.after.params:,} parameters,", end=" ")
    print(f"{result.before.macs:,} -> {result.after.macs:,} MACs,", end=" ")
    print(
        f"proof: {result.proof.groups_checked} groups, {result.proof.max_abs_error:.1e},", end=" "
    )
    print(f"accuracy {accuracy(result.model):.1%}, recovered {accuracy(fit(result.model)):.1%}")
