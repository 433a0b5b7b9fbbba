"""Where integers of a model's Python code meet tensors: shapes read, sizes given.

A function mode sees every torch function as the model called it. Sizes read from a shape are
tagged; sizes given to `view`, `split`, `zeros` and their kin arrive at a dimension of the result,
which gives an equation for a tagged integer and a literal for a plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from secateur.graph.call import OpCall, dims_of, wrap
from secateur.graph.dispatch import Recorder
from secateur.graph.numbering import counts_of
from secateur.graph.ranges import narrowed, sliced
from secateur.graph.recurrent import GATES, run_recurrent
from secateur.graph.scales import SizedFloat
from secateur.graph.sized_ints import Ledger, LiveSize, Note, SizedInt, location
from secateur.graph.types import leading, pin, size_of, split

_GATEKEEPERS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_ASKING = frozenset("dim is_floating_point is_complex is_contiguous element_size".split())
"""What a tensor answers without an operator, and nothing with a size in it."""
_ATTENTION = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_SCALARS = frozenset(
    "mul mul_ div div_ true_divide pow add add_ sub sub_ rsub fill_ full tensor as_tensor "
    "scalar_tensor __mul__ __rmul__ __add__ __radd__ __sub__ __rsub__ __truediv__ __rtruediv__ "
    "__pow__ __rpow__ __imul__ __itruediv__ __iadd__ __isub__ multiply divide floor_divide".split()
)


class Arrivals(TorchFunctionMode):
    """Tags sizes as they leave tensors and notes them as they come back."""

    def __init__(self, ledger: Ledger, recorder: Recorder) -> None:
        super().__init__()
        self.ledger = ledger
        self.recorder = recorder

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "__get__":
            result = func(*args, **kwargs)
            return self._tagged_shape(args[0], result) if isinstance(result, torch.Size) else result
        if name in _ASKING:
            return func(*args, **kwargs)
        if name in GATES:
            return self._recurrent(func, name, args)
        if name == "scaled_dot_product_attention":
            return self._attention(func, args, kwargs)
        for value in args:
            if type(value) is SizedFloat or (name in _SCALARS and isinstance(value, SizedInt)):
                args = _scaled(self.ledger, name, args)
                break
        for key, value in kwargs.items():
            if type(value) is SizedFloat:
                kwargs[key] = value.lost()
        result = None if kwargs else self.recorder.directly(func, args)
        if result is None:
            with self.recorder.asked():
                result = func(*args, **kwargs)
        handler = HANDLERS.get(name)
        return result if handler is None else handler(self.ledger, args, kwargs, result)

    def _tagged_shape(self, tensor: Tensor, shape: torch.Size) -> torch.Size:
        dims = dims_of(tensor)
        return torch.Size(
            self.ledger.size(size, dim) for size, dim in zip(shape, dims, strict=True)
        )

    def _recurrent(self, func: Callable[..., Any], name: str, args: tuple[Any, ...]) -> Any:
        with self.recorder.paused():
            ran = None if self.recorder.meta else func(*args)
            outs, ins, macs = run_recurrent(name, args, ran)
        self.recorder.keep(name, ins, outs, macs)
        return outs

    def _attention(
        self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Tensor:
        """One operator, whatever kernel a device would choose: on meta torch would take the one
        that writes out the whole attention matrix."""
        named = dict(zip(_ATTENTION, args, strict=False)) | kwargs
        query, value = named["query"], named["value"]
        scale = self._scale_of_attention(query, named.get("scale"))
        if isinstance(scale, SizedFloat):
            scale.site((query, named["key"]))
        named["scale"] = float.__float__(scale)
        with self.recorder.paused():
            if self.recorder.meta:
                shape = (*query.shape[:-1], value.shape[-1])
                out = torch.empty(shape, dtype=query.dtype, device="meta")
            else:
                out = func(**named)
        op = torch.ops.aten.scaled_dot_product_attention.default
        self.recorder.record(OpCall(op, (), named, out))
        return out

    def _scale_of_attention(self, query: Tensor, given: Any) -> float:
        """What the products of queries and keys are multiplied by: 1/sqrt(head_dim) by default."""
        given = self.ledger.number(given, "an attention scale")
        if given is not None:
            return given  # type: ignore[no-any-return]
        width = LiveSize(dims_of(query)[-1])
        where = f"attention at {location(2)}"
        return self.ledger.scale(query.shape[-1], width, where) ** -0.5  # type: ignore[no-any-return]


@contextmanager
def visible_functionals() -> Iterator[None]:
    """Let a function mode see inside `torch.nn.functional`.

    Its Python functions hand themselves over whole when a mode is active, which hides the calls
    they make; with the gate closed they run as plain Python and each inner call is seen.
    """
    modules = (torch.nn.functional, torch.functional)
    saved = [(m, n, getattr(m, n)) for m in modules for n in _GATEKEEPERS if n in vars(m)]
    for module, name, _ in saved:
        setattr(module, name, lambda *args: False)
    try:
        yield
    finally:
        for module, name, original in saved:
            setattr(module, name, original)


_DIVISIONS = frozenset("div div_ true_divide __truediv__ __itruediv__ divide".split())
_FACTORS = frozenset("mul mul_ multiply __mul__ __rmul__ __imul__".split()) | _DIVISIONS


def _scaled(ledger: Ledger, name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments with plain numbers for sized ones, whose arrival is noted."""
    plain: list[Any] = []
    for position, value in enumerate(args):
        number = ledger.number(value, name)
        if not isinstance(number, SizedFloat):
            plain.append(number)
            continue
        plain.append(int(value) if isinstance(value, int) else number.plain)
        if name in _FACTORS and position == 1 and isinstance(args[0], Tensor):
            number.site(args[:1], inverse=name in _DIVISIONS)
        else:
            number.lost()
    return tuple(plain)


def _flat_sizes(args: Sequence[Any]) -> list[Any]:
    """Sizes given as one sequence or one by one."""
    if len(args) == 1 and isinstance(args[0], (tuple, list)):
        return list(args[0])
    return [arg for arg in args if isinstance(arg, int)]


def _arrive_all(ledger: Ledger, sizes: Sequence[Any], result: Any, what: str) -> None:
    if not isinstance(result, Tensor):
        return
    dims = dims_of(result)
    if len(sizes) == len(dims):
        where = f"{what} at {location(2)}"
        for value, dim in zip(sizes, dims, strict=True):
            if isinstance(value, int):
                ledger.arrive(value, dim, where)


def _shaped(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """A method whose sizes follow the tensor: view, reshape, expand, new_zeros."""
    given = args[1:] or (kwargs.get("shape") or kwargs.get("size") or (),)
    _arrive_all(ledger, _flat_sizes(given), result, "a shape")
    return result


def _created(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """A factory whose sizes come first: zeros, ones, empty, full."""
    given = args or (kwargs.get("size", ()),)
    if given and isinstance(given[0], (tuple, list)):
        given = given[:1]
    _arrive_all(ledger, _flat_sizes(given), result, "a shape")
    return result


def _counted(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """arange and its kin: the one size of the result."""
    if result.dim() == 1:
        ends = [arg for arg in args if isinstance(arg, SizedInt) and arg == result.shape[0]]
        for end in ends:
            ledger.arrive(end, dims_of(result)[0], f"a range at {location(2)}")
    return result


def _size(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    dims = dims_of(args[0])
    if isinstance(result, torch.Size):
        return torch.Size(ledger.size(n, dim) for n, dim in zip(result, dims, strict=True))
    dim = args[1] if len(args) > 1 else kwargs["dim"]
    return ledger.size(result, dims[dim])


def _numel(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    return ledger.size(result, tuple(atom for dim in dims_of(args[0]) for atom in dim))


def _repeated(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """repeat: each count is the outer factor of its dimension."""
    counts = _flat_sizes(args[1:] or (kwargs.get("repeats", ()),))
    dims = dims_of(result)
    if len(counts) == len(dims):
        for count, dim in zip(counts, dims, strict=True):
            outer = leading(dim, int(count))
            if outer is not None:
                ledger.arrive(count, outer, f"a repeat count at {location(2)}")
    return result


def _unflattened(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    dim = wrap(args[1] if len(args) > 1 else kwargs["dim"], args[0].dim())
    sizes = args[2] if len(args) > 2 else kwargs["sizes"]
    for k, value in enumerate(sizes):
        ledger.arrive(value, dims_of(result)[dim + k], f"a shape at {location(2)}")
    return result


def _pieces(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """split: the sizes of the pieces, or the one size of all."""
    named = ("split_size_or_sections", "split_size", "split_sizes")
    sizes = args[1] if len(args) > 1 else next(kwargs[n] for n in named if n in kwargs)
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    given = list(sizes) if isinstance(sizes, (tuple, list)) else [sizes] * len(result)
    where = f"a split at {location(2)}"
    for value, piece in zip(given, result, strict=True):
        product = dims_of(piece)[dim]
        if int(value) == size_of(product):
            ledger.arrive(value, product, where)
        else:
            pin(product, f"the remainder of {where}")
    return result


def _chunks(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """chunk: all pieces stay equal."""
    dim = args[2] if len(args) > 2 else kwargs.get("dim", 0)
    products = [dims_of(piece)[dim] for piece in result]
    where = f"a chunk at {location(2)}"
    if len({size_of(product) for product in products}) > 1:
        for product in products:
            pin(product, f"uneven pieces of {where}")
    for product in products[1:]:
        first = ledger.size(size_of(products[0]), products[0])
        if isinstance(first, SizedInt):
            ledger.arrive(first, product, where)
    return result


def _convolved(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    groups = args[6] if len(args) > 6 else kwargs.get("groups", 1)
    _grouped(ledger, args, groups, "convolution groups")
    return result


def _grouped(ledger: Ledger, args: tuple[Any, ...], groups: int, what: str) -> None:
    channels = dims_of(args[0])[1] if args[0].dim() > 1 else ()
    group = leading(channels, int(groups)) if groups > 1 else None
    if group is not None:
        ledger.arrive(groups, group, f"{what} at {location(2)}")


def _group_normed(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
    _grouped(ledger, args, args[1] if len(args) > 1 else kwargs["num_groups"], "norm groups")
    return out


def _normed(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    shape = args[1] if len(args) > 1 else kwargs["normalized_shape"]
    shape = shape if isinstance(shape, (tuple, list)) else (shape,)
    where = f"normalized_shape at {location(2)}"
    for value, dim in zip(shape, dims_of(args[0])[-len(shape) :], strict=True):
        ledger.arrive(value, dim, where)
    return result


def _squeezed(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """squeeze: a dimension that stayed must not become one of size 1, which would go."""
    dims, given = dims_of(args[0]), args[1:] or (kwargs.get("dim"),)
    if result is args[0]:
        return result  # in place: the types are those after it
    asked = list(given[0]) if isinstance(given[0], (tuple, list)) else list(given)
    where = f"a squeeze at {location(2)}"
    for k in range(len(dims)) if asked[0] is None else [wrap(int(d), len(dims)) for d in asked]:
        if size_of(dims[k]) > 1:
            ledger.notes.append(Note("gt", LiveSize(dims[k]), 1, True, where))
    return result


def _chosen(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """topk: what is chosen from must keep as many as are chosen."""
    k = args[1] if len(args) > 1 else kwargs["k"]
    dim = args[2] if len(args) > 2 else kwargs.get("dim", -1)
    dims = dims_of(args[0])
    if dims:
        size = LiveSize(dims[wrap(int(dim), len(dims))])
        where = f"the largest {int(k)} at {location(2)}"
        ledger.notes.append(Note("ge", size, int(k), True, where))
    return result


def _binned(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    """histc: a bin for each index of a dimension, from 0 to one less than there are."""
    if counts_of(result) is not None:
        names = ("input", "bins", "min", "max")
        named = dict(zip(names, args, strict=False)) | kwargs
        (dim,) = dims_of(result)
        where = f"bins of a histogram at {location(2)}"
        if not isinstance(named["max"], SizedInt):
            pin(dim, f"a literal of {where}")
        ledger.arrive(named["bins"], dim, where)
    return result


def _padded(ledger: Ledger, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> Any:
    widths = list(args[1] if len(args) > 1 else kwargs["pad"])
    dims = dims_of(result)
    for k, width in enumerate(widths):
        if isinstance(width, SizedInt) and width > 0:
            dim = dims[-1 - k // 2]
            before, after = split(dim, int(width) if k % 2 == 0 else size_of(dim) - int(width))
            piece = before if k % 2 == 0 else after
            assert piece is not None
            ledger.arrive(width, piece, f"padding at {location(2)}")
    return result


_Handler = Callable[[Ledger, tuple[Any, ...], dict[str, Any], Any], Any]
_FAMILIES: tuple[tuple[_Handler, str], ...] = (
    (_shaped, "view reshape expand broadcast_to new_zeros new_ones new_empty new_full"),
    (_created, "zeros ones empty full rand randn"),
    (_counted, "arange linspace eye"),
    (_size, "size"),
    (_numel, "numel"),
    (_repeated, "repeat tile"),
    (_unflattened, "unflatten"),
    (_pieces, "split split_with_sizes"),
    (_chunks, "chunk"),
    (sliced, "__getitem__"),
    (narrowed, "narrow"),
    (_convolved, "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d"),
    (_group_normed, "group_norm"),
    (_normed, "layer_norm rms_norm"),
    (_padded, "pad"),
    (_squeezed, "squeeze"),
    (_chosen, "topk"),
    (_binned, "histc"),
)
HANDLERS = {name: handler for handler, names in _FAMILIES for name in names.split()}
