"""Task 10: pruning with quantization. The pruned model's weights are saved as int8 with a float32
scale for each output channel, and loaded back. The file is that much smaller; the arithmetic stays
float32, so this saves storage and not time: for int8 kernels give the pruned model to torchao.
"""

from pathlib import Path

from handwritten_digits import accuracy, example, fit, trained_cnn
from int8_weights import load_int8_, save_int8

import secateur as sc

dense = trained_cnn()
for criterion in ("l2", "random"):
    result = sc.prune(dense, example, budget="params=40%", criterion=criterion)
    pruned = accuracy(fit(result.model))
    file = Path(f"int8_{criterion}.safetensors")
    save_int8(result.model, file)
    load_int8_(result.model, file)
    quantized = accuracy(result.model)
    print(f"{criterion}: {4 * result.before.params:,} -> {4 * result.after.params:,}", end=" ")
    print(f"-> {file.stat().st_size:,} bytes;", end=" ")
    print(f"accuracy {accuracy(dense):.1%} -> {pruned:.1%} -> {quantized:.1%}")
