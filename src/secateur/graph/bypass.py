"""A model whose blocks pass their stream on: what it computes without them, for criteria and proof.

Hooks give the stream that went into a block in place of the one that came out; the block's other
outputs stay. The block works on a copy, so that one which writes into its input changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_map_only, tree_unflatten

from secateur.core.blocks import Block
from secateur.graph.calls import given_to, tensors_in

Seen = Callable[[Block, Tensor, Tensor], None]
"""Told the block, the stream that went in and the one that came out."""


@contextmanager
def bypassed(model: nn.Module, blocks: Iterable[Block]) -> Iterator[None]:
    """The blocks pass their stream on unchanged while this stands.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> last = Block("1", "Linear", "", 6, 4, stream=0, identity=False)
    >>> with bypassed(model, [last]):
    ...     bool(torch.equal(model(torch.ones(1, 2)), model[0](torch.ones(1, 2))))
    True
    """
    with ExitStack() as stack:
        for block in blocks:
            module = model.get_submodule(block.path)
            given: list[Tensor] = []
            enter, leave = _copy_given(block, given), _give_back(given)
            for handle in (
                module.register_forward_pre_hook(enter, with_kwargs=True),
                module.register_forward_hook(leave, with_kwargs=True),
            ):
                stack.callback(handle.remove)
        yield


@contextmanager
def watched_streams(model: nn.Module, blocks: Iterable[Block], seen: Seen) -> Iterator[None]:
    """Tells `seen` of every run of a block while this stands."""
    with ExitStack() as stack:
        for block in blocks:
            module = model.get_submodule(block.path)
            hook = _telling(block, seen)
            stack.callback(module.register_forward_hook(hook, with_kwargs=True).remove)
        yield


def _copy_given(block: Block, given: list[Tensor]) -> Callable[..., Any]:
    def enter(module: nn.Module, args: Any, kwargs: Any) -> Any:
        stream = list(given_to(args, kwargs))[block.stream]
        given.append(stream)
        return tree_map_only(
            Tensor, lambda tensor: tensor.clone() if tensor is stream else tensor, (args, kwargs)
        )

    return enter


def _give_back(given: list[Tensor]) -> Callable[..., Any]:
    def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> Any:
        first = next(tensors_in(out))
        leaves, spec = tree_flatten(out)
        stream = given.pop()
        return tree_unflatten([stream if leaf is first else leaf for leaf in leaves], spec)

    return leave


def _telling(block: Block, seen: Seen) -> Callable[..., None]:
    def leave(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
        seen(block, list(given_to(args, kwargs))[block.stream], next(tensors_in(out)))

    return leave
