"""Where a model runs: one runtime a file, found, listed and tested by its name.

What is measured is what will be served, so a budget of latency names its runtime and precision. A
runtime has `PRECISIONS`, those of "fp32", "bf16" and "int8" that it knows, `PACKAGE`, what is
installed for it, and ``ready(model, inputs, how)``, which makes a model ready for one forward as a
`Prepared`. It imports its package inside, and raises ValueError where that, or the processor, lacks
what it needs.
"""

from secateur.cost.runtimes.prepared import How, Prepared, call_of, check, prepare

NOT_EXTENSIONS = frozenset({"feeds", "node_times", "onnx_export", "onnx_int8", "prepared"})

__all__ = ["How", "Prepared", "call_of", "check", "prepare"]
