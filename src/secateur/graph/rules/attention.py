"""Scaled dot-product attention: one rule for its fused forms.

Shapes: query ``[*batch, heads, q_len, head_dim]``, key and value ``[*batch, kv_heads, k_len, .]``.
With grouped queries, heads are kv_heads x repeat. The softmax runs over the keys, and the default
scale is 1/sqrt(head_dim).
"""

from __future__ import annotations

from torch import Tensor

from secateur.graph.call import OpCall, broadcast, dims_of, handles
from secateur.graph.rules.broadcasting import sizes_of
from secateur.graph.rules.zeros import flag_surviving
from secateur.graph.types import Dims, Product, flag, fresh, pin, size_of, unify


@handles(
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    "_scaled_dot_product_attention_math_for_mps",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_cudnn_attention",
    "_scaled_dot_product_fused_attention_overrideable",
)
def attention(call: OpCall) -> Dims | list[Dims | None]:
    query, key, value = call.dims("query"), call.dims("key"), call.dims("value")
    batch = tuple(
        _shared(q, (k, v), call.where)
        for q, k, v in zip(query[:-2], key[:-2], value[:-2], strict=True)
    )
    unify(query[-1], key[-1], call.where)
    flag_surviving(query[-1], call.get("query"), call.get("key"))
    unify(key[-2], value[-2], call.where)
    if call.get("scale") is None:
        flag(query[-1], "scaled", "attention is scaled by 1/sqrt of it")
    flag(key[-2], "renormalised", "softmax over it")
    weights = (*batch, query[-2], key[-2])
    _apply_mask(call, weights)
    call.macs.append((*weights, query[-1]))
    call.macs.append((*weights, value[-1]))
    result = (*batch, query[-2], value[-1])
    if not call.returns_many:
        return result
    return [result, *(_extra(extra, weights) for extra in call.out[1:])]


def _shared(query: Product, others: tuple[Product, ...], where: str) -> Product:
    """A batch or heads dimension of the result, from the query's, the key's and the value's."""
    sizes = [size_of(product) for product in (query, *others)]
    largest = (query, *others)[sizes.index(max(sizes))]
    for product in (query, *others):
        size = size_of(product)
        if size == size_of(largest):
            unify(product, largest, where)
        elif size > 1:
            # query head = kv head * repeat + r
            unify(largest, product + fresh(size_of(largest) // size), where)
    return largest


def _apply_mask(call: OpCall, weights: Dims) -> None:
    mask = call.get("attn_mask", call.get("attn_bias"))
    if isinstance(mask, Tensor):
        broadcast([weights, dims_of(mask)], sizes_of(weights), call.where)
    if call.get("is_causal", False):
        pin(weights[-2], "a causal mask compares positions along it")
        pin(weights[-1], "a causal mask compares positions along it")


def _extra(extra: object, weights: Dims) -> Dims | None:
    """The log-sum-exp ``[*batch, heads, q_len]`` or the weights; anything else is opaque."""
    if not isinstance(extra, Tensor):
        return None
    for dims in (weights, weights[:-1]):
        if tuple(extra.shape) == tuple(sizes_of(dims)):
            return dims
    return None
