"""Normalisations: what is averaged over is renormalised by a cut, the rest passes through.

A batch norm in evaluation only scales and shifts channels, so zeroing a channel's weight and bias
equals removing it. Layer, RMS and group norms average over channels.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from secateur.graph.call import OpCall, broadcast, dims_of, handles
from secateur.graph.rules.broadcasting import sizes_of
from secateur.graph.types import Dims, Product, flag, fresh, size_of, unify


@handles("native_layer_norm", "layer_norm", "_fused_rms_norm", "rms_norm")
def layer_norm(call: OpCall) -> Dims | list[Dims | None]:
    x = call.dims("input")
    first = len(x) - len(call.get("normalized_shape"))
    for name in ("weight", "bias"):
        parameter = call.get(name)
        if isinstance(parameter, Tensor):
            for product, other in zip(x[first:], dims_of(parameter), strict=True):
                unify(product, other, call.where)
    kind = "RMS norm" if "rms" in call.name else "layer norm"
    for product in x[first:]:
        flag(product, "renormalised", f"{kind} over it")
    if not call.returns_many:
        return x
    # mean and reciprocal deviation keep the normalised dimensions with size 1
    statistics: Dims = (*x[:first], *[()] * (len(x) - first))
    return [x, *[statistics] * (len(call.out) - 1)]


@handles("native_group_norm")
def native_group_norm(call: OpCall) -> list[Dims | None]:
    x, groups = _normalise_groups(call, int(call.get("group")))
    return [x, (x[0], groups), (x[0], groups)]


@handles("group_norm")
def group_norm(call: OpCall) -> Dims:
    return _normalise_groups(call, int(call.get("num_groups")))[0]


def _normalise_groups(call: OpCall, count: int) -> tuple[Dims, Product]:
    x = call.dims("input")
    groups, within = fresh(count), fresh(size_of(x[1]) // count)
    unify(x[1], groups + within, call.where)
    _unify_parameters(call, x[1], ("weight", "bias"))
    for product in (within, *x[2:]):
        flag(product, "renormalised", "group norm over it")
    return x, groups


def _unify_parameters(call: OpCall, channels: Product, names: Iterable[str]) -> None:
    for name in names:
        parameter = call.get(name)
        if isinstance(parameter, Tensor) and parameter.dim() == 1:
            unify(dims_of(parameter)[0], channels, call.where)


PER_CHANNEL = ("weight", "bias", "running_mean", "running_var")


@handles(
    "batch_norm",
    "native_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_impl_index",
    "_batch_norm_no_update",
    "_batch_norm_with_update",
    "_batch_norm_with_update_functional",
    "cudnn_batch_norm",
    "miopen_batch_norm",
)
def batch_norm(call: OpCall) -> Dims | list[Dims | None]:
    x = call.dims("input")
    _unify_parameters(call, x[1], PER_CHANNEL)
    if call.get("training", "with_update" in call.name):
        for k, product in enumerate(x):
            if k != 1:
                flag(product, "renormalised", "batch norm over it in training")
    if not call.returns_many:
        return x
    return [x, *(_per_channel(extra, x[1]) for extra in call.out[1:])]


def _per_channel(extra: object, channels: Product) -> Dims | None:
    """A saved statistic is per channel; other extra outputs are empty or opaque."""
    if isinstance(extra, Tensor) and tuple(extra.shape) == (size_of(channels),):
        return (channels,)
    return None


@handles("instance_norm")
def instance_norm(call: OpCall) -> Dims:
    x = call.dims("input")
    _unify_parameters(call, x[1], PER_CHANNEL)
    if call.get("use_input_stats"):
        for product in x[2:]:
            flag(product, "renormalised", "instance norm over it")
    return x


@handles("_weight_norm_interface", "_weight_norm")
def weight_norm(call: OpCall) -> Dims | list[Dims | None]:
    """``v * g / norm(v)``, the norm taken over every dimension but `dim`.

    Removing an input channel changes the norm, while zeroing that channel of the finished weight
    does not, hence the flag.
    """
    v, g = call.dims("v"), call.dims("g")
    kept = int(call.get("dim")) % len(v)
    broadcast([v, g], sizes_of(v), call.where)
    for k, product in enumerate(v):
        if k != kept:
            flag(product, "renormalised", "weight norm over it")
    return [v, g] if call.returns_many else v
