"""ONNX Runtime on the CPU: a session that runs one operator after another."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from secateur.cost.runtimes.feeds import Feed, feed_of, feeds_of
from secateur.cost.runtimes.node_times import FEWEST, PASSES, SECONDS, module_times
from secateur.cost.runtimes.onnx_export import exported, input_names
from secateur.cost.runtimes.onnx_int8 import quantized
from secateur.cost.runtimes.prepared import How, Prepared

PRECISIONS = ("fp32", "int8")
PACKAGE = "onnxruntime"


def ready(model: nn.Module, inputs: Any, how: How) -> Prepared:
    """A session of the exported model; in int8 quantized on the calibration batches."""
    package = _package()
    text = exported(model, inputs)
    names = input_names(text)
    if how.precision == "int8":
        text = quantized(text, feeds_of(how.calibration or [inputs], names, like=inputs))
    feed = feed_of(inputs, names)
    session = _session(package, text, how.threads)
    return Prepared(
        model,
        partial(session.run, None, feed),
        "onnxruntime",
        how.precision,
        on=lambda given: session.run(None, feed_of(given, names)),
        own_times=partial(_own_times, package, text, feed, how.threads, model),
    )


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
    paths = [path for path, _ in model.named_modules()]
    return module_times(text, list(_forwards(events)), paths)


def _forwards(events: Sequence[Mapping[str, Any]]) -> Iterator[list[tuple[str, str, float]]]:
    """Nodes of each forward of a profile, which ends where the next run of the model starts."""
    nodes: list[tuple[str, str, float]] = []
    for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
        if event["name"] == "model_run" and nodes:
            yield nodes
            nodes = []
        elif event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name, operator = event["name"].removesuffix("_kernel_time"), event["args"]["op_name"]
            nodes.append((name, operator, event["dur"] / 1e3))
    yield nodes


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
