"""Pruning in one go, without training: weights are fitted again by least squares."""

from secateur.oneshot.reconstruct import reconstruct_

__all__ = ["reconstruct_"]
