"""Cutting: slice parameters, rewrite attributes, carry optimizer state, and prove the result."""

from secateur.cut.apply import apply_architecture_, cut, cut_
from secateur.cut.masked import masked
from secateur.cut.verify import verify

__all__ = ["apply_architecture_", "cut", "cut_", "masked", "verify"]
