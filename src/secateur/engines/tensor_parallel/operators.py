"""What an operator does to a tensor of which each rank holds some units of one axis.

Local: each unit's result needs that unit alone, so the result is a piece too. Contracting: the axis
is summed over, linearly in each operand, so the ranks' results add up. Everything else is unknown
here, and what it touches stays whole on every rank.
"""

from __future__ import annotations

import torch

from secateur.engines.tensor_parallel.tape import Step
from secateur.graph.dispatch import rule_for
from secateur.graph.rules.pointwise import pointwise

_VIEWS = frozenset(
    "view _unsafe_view reshape permute transpose t unbind select slice split split_with_sizes "
    "chunk squeeze unsqueeze expand alias narrow unflatten flatten repeat repeat_interleave "
    "movedim".split()
)
_COPIES = frozenset("clone contiguous _to_copy lift_fresh detach".split())
_LOCAL = (
    _VIEWS
    | _COPIES
    | frozenset(
        "cat stack mm bmm addmm baddbmm matmul linear mv convolution embedding "
        "batch_norm native_batch_norm _native_batch_norm_legit _batch_norm_impl_index "
        "_native_batch_norm_legit_no_training cudnn_batch_norm "
        "native_layer_norm layer_norm native_group_norm group_norm _fused_rms_norm rms_norm "
        "softmax _softmax _safe_softmax _log_softmax log_softmax sum mean var amax amin "
        "std var_mean linalg_vector_norm norm "
        "scaled_dot_product_attention _scaled_dot_product_flash_attention "
        "_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_attention_math "
        "_scaled_dot_product_efficient_attention "
        "max_pool1d max_pool2d max_pool2d_with_indices avg_pool1d avg_pool2d "
        "adaptive_avg_pool2d _adaptive_avg_pool2d adaptive_max_pool2d adaptive_avg_pool1d "
        "upsample_nearest2d upsample_bilinear2d upsample_bicubic2d constant_pad_nd "
        "im2col col2im pixel_shuffle pixel_unshuffle channel_shuffle "
        "index index_select index_add gather scatter scatter_add index_put "
        "roll flip cumsum".split()
    )
)
_ALONG = frozenset(
    "roll flip cumsum softmax _softmax _safe_softmax _log_softmax log_softmax".split()
)
"""Local only where they run along another dimension than the axis."""
_CONTRACTING = frozenset(
    "mm bmm addmm baddbmm matmul linear mv addmv dot convolution sum _grouped_mm".split()
)
_MAKING = frozenset(
    "zeros ones full empty new_zeros new_ones new_empty new_full expand repeat "
    "repeat_interleave".split()
)
_ATTENTION = "scaled_dot_product"


def is_local(step: Step, along: int | None) -> bool:
    """Whether a step computes each unit from that unit alone. along: the dimension of its first
    tensor in which the axis lies, None where that tensor has it not."""
    if step.name in _ALONG and along is not None and along in _dims(step):
        return False
    return step.name in _LOCAL or rule_for(step.call.func) is pointwise


def is_contraction(step: Step) -> bool:
    """Whether a step, in whose result the axis is gone, has added its units up."""
    return step.name in _CONTRACTING


def makes_pieces(step: Step) -> bool:
    """Whether a step makes equal units of none, or of one."""
    return step.name in _MAKING or rule_for(step.call.func) is pointwise


def passes_sums(step: Step) -> bool:
    """Whether the sum of a step's results is its result for the sum: views, copies, and numbers
    that everything is multiplied by."""
    if step.name in _VIEWS or step.name in _COPIES:
        return len(step.ins) == 1
    return step.name in ("mul", "div", "neg") and len(step.ins) == 1 and _is_first(step)


def adds(step: Step) -> bool:
    """Whether a step is a plain sum of two tensors."""
    return step.name == "add" and len(step.ins) == 2


def draws(step: Step) -> bool:
    """Whether a step takes random numbers."""
    if step.name.lstrip("_").startswith(_ATTENTION):
        return float(step.call.get("dropout_p", 0.0)) > 0
    return torch.Tag.nondeterministic_seeded in step.call.func.tags


def _is_first(step: Step) -> bool:
    return bool(step.call.args) and step.call.args[0] is step.ins[0]


def _dims(step: Step) -> set[int]:
    """The dimensions that a step runs along, counted from the front."""
    found = step.call.get("dims", step.call.get("dim"))
    several = found if isinstance(found, (tuple, list)) else [found]
    return {int(dim) % max(step.ins[0].dim(), 1) for dim in several if dim is not None}
