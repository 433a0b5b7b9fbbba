"""Nodes that a runtime fused and renamed find back to the modules that they came from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from secateur.cost.runtimes.node_times import SCOPES, _by_module, _Names
from secateur.cost.runtimes.onnxruntime import _forwards


def node(name: str, kind: str, inputs: list[str], output: str, scopes: list[str]) -> Any:
    scope = SimpleNamespace(key=SCOPES, value=repr(["", *scopes, output]))
    return SimpleNamespace(
        name=name, op_type=kind, input=inputs, output=[output], metadata_props=[scope]
    )


GRAPH = SimpleNamespace(
    node=[
        node("conv", "Conv", ["x", "body.0.weight"], "getitem", ["body", "body.1"]),
        node("act", "Relu", ["getitem"], "relu", ["body", "body.2"]),
        node("matmul", "MatMul", ["relu", "val_3"], "linear", ["head"]),
        node("softmax", "Softmax", ["linear"], "softmax", []),
    ]
)
PATHS = ("", "body", "body.0", "body.1", "body.2", "head")


def test_a_node_belongs_to_the_module_with_its_weights():
    names = _Names(GRAPH, PATHS)
    assert names.module("conv", "Conv", "") == "body.0"  # the exporter says body.1
    assert names.module("relu_nchwc", "Conv", "") == "body.0"  # an activation fused with it
    assert names.module("act", "Relu", "") == "body.2"
    assert names.module("matmul/MatMulAddFusion", "Gemm", "") == "head"
    assert names.module("conv_token_7", "QLinearConv", "") == "body.0"
    assert names.module("softmax", "Softmax", "") == ""
    assert names.module("ReorderOutput_token_3", "ReorderOutput", "body.0") == "body.0"


def event(name: str, start: int, duration: int, kind: str = "") -> dict[str, Any]:
    cat = "Node" if kind else "Session"
    return {"name": name, "ts": start, "dur": duration, "cat": cat, "args": {"op_name": kind}}


def test_a_profile_is_cut_into_forwards():
    events = [
        event("session_initialization", 0, 90),
        event("model_run", 100, 50),
        event("relu_nchwc_kernel_time", 110, 20, "Conv"),
        event("Reorder_kernel_time", 131, 4, "ReorderOutput"),
        event("matmul_kernel_time", 136, 10, "Gemm"),
        event("model_run", 200, 50),
        event("matmul_kernel_time", 236, 8, "Gemm"),
        event("relu_nchwc_kernel_time", 210, 30, "Conv"),
    ]
    names = _Names(GRAPH, PATHS)
    first, second = (_by_module(nodes, names) for nodes in _forwards(events))
    assert first == {"body.0": 0.024, "head": 0.01}
    assert second == {"body.0": 0.03, "head": 0.008}
