"""What each module takes inside a runtime of ONNX, by its own profile of the nodes that it runs.

The nodes that run are not those of the file: they are fused, renamed, and moved to other layouts.
A node that has weights belongs to the module whose weights they are, any other to the module that
the exporter wrote beside it; a node that only the runtime knows goes to the module before it.
"""

from __future__ import annotations

import re
import statistics
from ast import literal_eval
from collections.abc import Collection, Sequence
from typing import Any

SCOPES = "pkg.torch.onnx.name_scopes"
MAIN = frozenset(
    "Conv ConvTranspose Gemm MatMul FusedConv FusedGemm FusedMatMul QLinearConv QLinearMatMul "
    "QGemm Convolution GroupConvolution FullyConnected FullyConnectedQuantizedLegacy".split()
)
"""Operators that do the arithmetic, with which a runtime fuses what comes after."""
PASSES, FEWEST, SECONDS = 5, 2, 2.0
"""Forwards to profile after the first, which is not counted; fewer where they are long."""
Nodes = Sequence[tuple[str, str, float]]
"""A forward: name, operator and milliseconds of each node that ran, in their order."""


def module_times(
    text: bytes, forwards: Sequence[Nodes], paths: Collection[str]
) -> dict[str, float]:
    """Milliseconds of a forward by module path: the median of the forwards but the first.

    text: the ONNX that torch exported. paths: of the modules.
    """
    import onnx

    names = _Names(onnx.load_from_string(text).graph, paths)
    late = [_by_module(nodes, names) for nodes in forwards[1:]]
    found = dict.fromkeys(path for one in late for path in one)
    return {path: statistics.median(one.get(path, 0.0) for one in late) for path in found}


def _by_module(nodes: Nodes, names: _Names) -> dict[str, float]:
    own: dict[str, float] = {}
    last = ""
    for name, operator, ms in nodes:
        last = names.module(name, operator, last)
        own[last] = own.get(last, 0.0) + ms
    return own


class _Names:
    """Which module a node that runs belongs to, by its name and operator."""

    def __init__(self, graph: Any, paths: Collection[str]) -> None:
        self._nodes = {node.name: node for node in graph.node}
        self._makers = {value: node for node in graph.node for value in node.output}
        self._paths = frozenset(paths)
        self._modules: dict[tuple[str, str], str | None] = {}

    def module(self, name: str, operator: str, before: str) -> str:
        """The module's path, that of the node before where only the runtime knows the name."""
        key = (name, operator)
        if key not in self._modules:
            self._modules[key] = self._find(name, operator)
        found = self._modules[key]
        return before if found is None else found

    def _find(self, name: str, operator: str) -> str | None:
        first = name.split("/")[0]  # of a fusion that keeps the name of the first node
        node = self._nodes.get(name) or self._nodes.get(first)
        first = re.sub(r"_token_\d+$", "", first)  # of a node that was put in place of another
        node = node or self._nodes.get(first)
        if node is None:  # a fusion in another layout is named for the value that it makes
            node = self._makers.get(name.removesuffix("_nchwc"))
        if node is None:
            return None
        if operator in MAIN:
            node = self._main(node)
        return self._of_weights(node) or self._of_scopes(node)

    def _main(self, node: Any) -> Any:
        """The node with weights behind an activation or a sum that was fused with it."""
        behind = node
        while behind is not None and behind.op_type not in MAIN:
            makers = [self._makers[value] for value in behind.input if value in self._makers]
            behind = makers[0] if makers else None
        return node if behind is None else behind

    def _of_weights(self, node: Any) -> str | None:
        for value in node.input:
            path = str(value).rpartition(".")[0]
            if path and path in self._paths:  # what is computed has no dot in its name
                return path
        return None

    def _of_scopes(self, node: Any) -> str:
        """The exporter lists the modules that a node is in, then the call itself."""
        for entry in node.metadata_props:
            if entry.key == SCOPES:
                scopes = literal_eval(entry.value)
                return next((path for path in reversed(scopes[:-1]) if path in self._paths), "")
        return ""
