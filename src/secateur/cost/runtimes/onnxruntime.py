"""ONNX Runtime on the CPU: a session that runs one operator after another."""

from __future__ import annotations

import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur.cost.runtimes.feeds import Feed, feed_of, feeds_of
from secateur.cost.runtimes.node_times import module_times
from secateur.cost.runtimes.onnx_export import exported, input_names
from secateur.cost.runtimes.onnx_int8 import quantized
from secateur.cost.runtimes.prepared import How, Prepared

PRECISIONS = ("fp32", "int8")
PACKAGE = "onnxruntime"
PASSES, FEWEST, SECONDS = 5, 2, 2.0
"""Forwards that are profiled after the first, which is not counted; fewer where they are long."""


def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """A session of the exported model; in int8 quantized on the calibration batches."""
    package = _package()
    text = exported(model, inputs)
    names = input_names(text)
    if how.precision == "int8":
        text = quantized(text, feeds_of(how.calibration or [inputs], names, like=inputs))
    feed = feed_of(inputs, names)
    run = partial(_session(package, text, how.threads).run, None, feed)
    own = partial(_own_times, package, text, feed, how.threads, model)
    return Prepared(model, run, "onnxruntime", how.precision, own)


def _session(package: Any, text: bytes, threads: int, profile: Path | None = None) -> Any:
    options = package.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    return package.InferenceSession(text, options, providers=["CPUExecutionProvider"])


def _own_times(
    package: Any, text: bytes, feed: Feed, threads: int, model: nn.Module
) -> dict[str, float]:
    """What each module takes, in a session of its own: a profile slows what it looks at."""
    with tempfile.TemporaryDirectory() as folder:
        session = _session(package, text, threads, Path(folder) / "nodes")
        started = time.perf_counter()
        for turn in range(PASSES + 1):
            if turn >= FEWEST and time.perf_counter() - started > SECONDS:
                break
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return module_times(text, events, [path for path, _ in model.named_modules()])


def _package() -> Any:
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError:
        raise ValueError(
            "runtime 'onnxruntime' needs onnx, onnxruntime and onnxscript: "
            "pip install onnx onnxruntime onnxscript"
        ) from None
    return onnxruntime
