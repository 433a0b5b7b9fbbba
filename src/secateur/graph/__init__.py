"""Axis inference: which units of a model must be removed together, from one recorded forward."""

from secateur.graph.calls import tensors_in
from secateur.graph.trace import call_arguments, trace

__all__ = ["call_arguments", "tensors_in", "trace"]
