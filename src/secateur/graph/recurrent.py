"""Recurrent layers as one operator: a traced LSTM would otherwise unroll into thousands.

`torch.lstm`, `torch.gru` and `torch.rnn_*` are caught where Python calls them. A layer's weights
are ``w_ih [gates x hidden, input]`` and ``w_hh [gates x hidden, hidden or projection]``; all
layers and directions share one hidden size, because they share one initial state.
Source: torch.nn.LSTM and torch.nn.GRU documentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from secateur.graph.call import dims_of, set_dims
from secateur.graph.types import Dims, Product, concat, fresh, unify

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
_WHERE = "a recurrent layer"


def run_recurrent(
    name: str, args: Sequence[Any], outs: tuple[Tensor, ...] | None = None
) -> tuple[tuple[Tensor, ...], list[Tensor], list[tuple[Product, ...]]]:
    """Type a call of `torch.lstm` and its kin; (outputs, inputs, multiply-accumulate terms).

    outs: what the call returned, where it ran; meta tensors of the right shapes are made otherwise.
    """
    data, hidden, weights, has_biases, layers, bidirectional = _unpack(args)
    states = list(hidden) if name == "lstm" else [hidden]
    directions = 2 if bidirectional else 1
    per_layer = len(weights) // (layers * directions)
    projected = name == "lstm" and per_layer == (5 if has_biases else 3)
    x = dims_of(data)
    features, terms = x[-1], list[tuple[Product, ...]]()
    cell: Product | None = None
    out_size: Product | None = None
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * per_layer
            group = weights[start : start + per_layer]
            h, out, macs = _direction(group, GATES[name], has_biases, projected, features, x[:-1])
            cell, out_size = _same(cell, h), _same(out_size, out)
            outputs.append(out)
            terms += macs
        features = concat(outputs)
    assert cell is not None and out_size is not None
    dims_state: list[Dims] = []
    for k, state in enumerate(states):
        dims = dims_of(state)
        unify(dims[-1], cell if k == 1 else out_size, _WHERE)
        dims_state.append(dims)
    if outs is None:
        outs = _outputs(data, states, features, weights)
    set_dims(outs[0], (*x[:-1], features))
    for out_state, dims in zip(outs[1:], dims_state, strict=True):
        set_dims(out_state, dims)
    return outs, [data, *states, *weights], terms


def _unpack(args: Sequence[Any]) -> tuple[Tensor, Any, Sequence[Tensor], bool, int, bool]:
    """Input, initial states, weights, whether there are biases, layers, bidirectional."""
    if isinstance(args[3], bool):  # then dropout, training, bidirectional, batch_first
        data, hidden, weights, has_biases, layers, _, _, bidirectional, _ = args
    else:  # packed: the batch sizes come second, and there is no batch_first
        data, _, hidden, weights, has_biases, layers, _, _, bidirectional = args
    return data, hidden, weights, has_biases, layers, bidirectional


def _direction(
    weights: Sequence[Tensor],
    gates: int,
    has_biases: bool,
    projected: bool,
    features: Product,
    positions: Dims,
) -> tuple[Product, Product, list[tuple[Product, ...]]]:
    """Unify one layer and direction; its hidden size, its output size, its multiplications."""
    w_ih, w_hh = dims_of(weights[0]), dims_of(weights[1])
    hidden = fresh(weights[0].shape[0] // gates)
    rows = fresh(gates, "the gates of a recurrent layer") + hidden
    unify(w_ih[0], rows, _WHERE)
    unify(w_hh[0], rows, _WHERE)
    unify(w_ih[1], features, _WHERE)
    if has_biases:
        unify(dims_of(weights[2])[0], rows, _WHERE)
        unify(dims_of(weights[3])[0], rows, _WHERE)
    output = hidden
    terms = [(*positions, w_ih[0], w_ih[1]), (*positions, w_hh[0], w_hh[1])]
    if projected:
        w_hr = dims_of(weights[-1])
        unify(w_hr[1], hidden, _WHERE)
        output = w_hr[0]
        terms.append((*positions, w_hr[0], w_hr[1]))
    unify(w_hh[1], output, _WHERE)
    return hidden, output, terms


def _same(known: Product | None, new: Product) -> Product:
    if known is not None:
        unify(known, new, _WHERE)
    return new


def _outputs(
    data: Tensor, states: Sequence[Tensor], features: Product, weights: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    size = 1
    for atom in features:
        size *= atom.size
    out = torch.empty((*data.shape[:-1], size), dtype=weights[0].dtype, device=weights[0].device)
    return (out, *(torch.empty_like(state) for state in states))
