"""The shortcuts on meta give what torch gives: shape, strides and types, or leave it to torch."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from secateur.graph.meta_kernels import QUICK, MetaKernels

aten = torch.ops.aten
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def layouts(out: Tensor | tuple[Tensor, ...]) -> list[tuple]:
    outs = [out] if isinstance(out, Tensor) else out
    return [(tuple(t.shape), t.stride(), t.dtype, t.device.type) for t in outs]


def agrees(func: torch._ops.OpOverload, *args, **kwargs) -> bool:
    """Whether the shortcut applied; what it gives must be torch's."""
    found = QUICK[func](*args, **kwargs)
    if found is None:
        return False
    assert layouts(found) == layouts(func(*args, **kwargs)), (func, args, kwargs)
    return True


POINTWISE = [f for f, quick in QUICK.items() if quick.__name__ == "_pointwise"]
IN_PLACE = [f for f, quick in QUICK.items() if quick.__name__ == "_in_place"]
SHAPES = [(), (5,), (1,), (2, 3), (2, 1, 3), (1, 4, 1, 1), (2, 1, 3, 3), (2, 4, 3, 5), (1, 1, 2, 2)]


@pytest.mark.parametrize("func", POINTWISE, ids=str)
def test_pointwise(func) -> None:
    arguments = {a.name for a in func._schema.arguments}
    applied = 0
    for shape, dtype in itertools.product(SHAPES, TYPES):
        x = meta(*shape, dtype=dtype)
        for own in layouts_of(x):
            if "other" in arguments:
                others = [meta(*s, dtype=dtype) for s in SHAPES if fits(shape, s)]
                others += [meta(*shape), torch.empty(shape, dtype=torch.int64, device="meta")]
                numbers = [2.0, 3] if "Tensor" in str(func) and func.name().find("mum") < 0 else []
                for other in [*others, *numbers]:
                    applied += agrees(func, own, other)
                    if isinstance(other, Tensor):
                        applied += agrees(func, other, own)
            elif "exponent" in arguments:
                applied += sum(agrees(func, own, e) for e in (2, 0.5, 3.0))
            elif "min" in arguments and "max" in arguments and "clamp" in str(func):
                applied += agrees(func, own, 0.0, 1.0) + agrees(func, own, None, 6)
            elif "min" in arguments and "max" not in arguments:
                applied += agrees(func, own, 0.5)
            elif "max" in arguments and "min" not in arguments:
                applied += agrees(func, own, 2)
            else:
                applied += agrees(func, own)
    assert applied


@pytest.mark.parametrize("func", IN_PLACE, ids=str)
def test_in_place(func) -> None:
    binary = "other" in {argument.name for argument in func._schema.arguments}
    for shape, dtype in itertools.product(SHAPES, TYPES):
        for own in layouts_of(meta(*shape, dtype=dtype))[:3]:
            others = [
                meta(*s, dtype=dtype) for s in SHAPES if fits(shape, s) and len(s) <= len(shape)
            ]
            others = [o for o in others if torch.broadcast_shapes(o.shape, shape) == shape]
            rest = (
                [(o,) for o in (*others, 2.0)]
                if binary
                else [(0.0, 1.0)]
                if "clamp" in str(func)
                else [()]
            )
            for more in rest:
                before = layouts(own)
                assert QUICK[func](own, *more) is own
                assert func(own, *more) is own and layouts(own) == before
    if binary:
        assert QUICK[func](meta(3), meta(2, 3)) is None
        assert QUICK[func](meta(3), meta(3, dtype=torch.float64)) is None


def test_mean() -> None:
    applied = 0
    for shape, keep, dtype in itertools.product(SHAPES[1:], (False, True), TYPES):
        for x in layouts_of(meta(*shape, dtype=dtype)):
            n = len(shape)
            for dims in ([0], [-1], [n - 1], list(range(n)), [0, n - 1], [-2, -1], []):
                if dims == [] or (len({d % n for d in dims}) == len(dims) and -n <= min(dims)):
                    applied += agrees(aten.mean.dim, x, dims, keep)
    assert applied
    assert QUICK[aten.mean.dim](meta(2, 3), [5]) is None
    assert QUICK[aten.mean.dim](meta(2, 3), [0, -2]) is None


def layouts_of(x: Tensor) -> list[Tensor]:
    """The tensor, and others of its shape that are not contiguous or only nearly so."""
    n = x.dim()
    found = [x]
    if n:
        found.append(meta(*x.shape[::-1], dtype=x.dtype).permute(*reversed(range(n))))
        found.append(meta(*x.shape[:-1], 2 * x.shape[-1], dtype=x.dtype)[..., ::2])
        found.append(meta(*[1] * n, dtype=x.dtype).expand(x.shape))
    if n == 4:
        found.append(x.to(memory_format=torch.channels_last))
    return found


def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(1 in pair or pair[0] == pair[1] for pair in zip(a[::-1], b[::-1], strict=False))


def test_convolution() -> None:
    applied = 0
    for n, groups, stride, padding, dilation, kernel, dtype in itertools.product(
        (1, 2, 3), (1, 2), (1, 2), (0, 1, 3), (1, 2), (1, 3), TYPES
    ):
        x, w = meta(2, 4, *[9] * n, dtype=dtype), meta(6, 4 // groups, *[kernel] * n, dtype=dtype)
        own = ([stride] * n, [padding] * n, [dilation] * n, False, [0] * n, groups)
        for layout in layouts_of(x):
            applied += agrees(aten.convolution.default, layout, w, None, *own)
            applied += agrees(aten.convolution.default, layout, w, meta(6, dtype=dtype), *own)
        applied += agrees(
            aten.convolution.default,
            x,
            w,
            None,
            [stride],
            [padding],
            [dilation],
            False,
            [0],
            groups,
        )
        point = meta(1, 4, *[1] * n, dtype=dtype)
        if kernel == 1:
            applied += agrees(aten.convolution.default, point, w, None, *own)
    assert applied


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_norms(dtype) -> None:
    applied = [0, 0, 0]
    for shape in [(2, 4), (2, 4, 5), (2, 4, 3, 5), (1, 4, 1, 1), (2, 4, 2, 2, 2), (2, 1, 4, 4)]:
        x, c = meta(*shape, dtype=dtype), shape[1]
        for layout, w, b in itertools.product(layouts_of(x), (False, True), (False, True)):
            own = [meta(c, dtype=dtype) if given else None for given in (w, b)]
            mean, var = meta(c, dtype=dtype), meta(c, dtype=dtype)
            applied[0] += agrees(
                aten.native_batch_norm.default, layout, *own, mean, var, False, 0.1, 1e-5
            )
            alone = (layout, *own, mean, var, False, 0.1, 1e-5, False)
            applied[0] += agrees(aten.batch_norm.default, *alone)
            for running in ((mean, var), (None, None)):
                given = (layout, *own, *running, True, 0.1, 1e-5)
                if x.numel() > c:
                    applied[0] += agrees(aten.native_batch_norm.default, *given)
                else:  # a single value has no variance, and torch fails
                    assert QUICK[aten.native_batch_norm.default](*given) is None
            positions = x.numel() // (shape[0] * c)
            for groups in {1, c}:
                applied[2] += agrees(
                    aten.native_group_norm.default,
                    layout, *own, shape[0], c, positions, groups, 1e-5,
                )  # fmt: skip
            for last in range(1, len(shape)):
                normed = list(shape[-last:])
                own = [meta(*normed, dtype=dtype) if given else None for given in (w, b)]
                applied[1] += agrees(aten.native_layer_norm.default, layout, normed, *own, 1e-5)
    assert all(applied)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_products(dtype) -> None:
    applied = [0, 0, 0]
    for a in layouts_of(meta(3, 4, dtype=dtype)):
        for b in layouts_of(meta(4, 5, dtype=dtype)):
            applied[0] += agrees(aten.mm.default, a, b)
            for addend in (meta(5), meta(3, 5), meta(3, 1), meta(1), meta(1, 5), meta(5, 3).t()):
                applied[1] += agrees(aten.addmm.default, addend.to(dtype), a, b)
                applied[1] += agrees(aten.addmm.default, addend.to(dtype), a, b, beta=0.5, alpha=2)
    for a in layouts_of(meta(2, 3, 4, dtype=dtype)):
        for b in layouts_of(meta(2, 4, 5, dtype=dtype)):
            applied[2] += agrees(aten.bmm.default, a, b)
    assert all(applied)


@pytest.mark.parametrize("dtype", (*TYPES, torch.int64), ids=str)
def test_joins_and_softmax(dtype) -> None:
    applied = [0, 0]
    for shape in [(3,), (2, 3), (2, 3, 4), (2, 3, 4, 5), (1, 3, 1, 1), (2, 1, 2, 2)]:
        for dim in range(-len(shape), len(shape)):
            for other in layouts_of(meta(*shape, dtype=dtype)):
                applied[0] += agrees(aten.cat.default, [meta(*shape, dtype=dtype), other], dim)
                if dtype.is_floating_point:
                    applied[1] += agrees(aten._softmax.default, other, dim, False)
            larger = list(shape)
            larger[dim] = 7
            applied[0] += agrees(
                aten.cat.default,
                [meta(*shape, dtype=dtype)] * 2 + [meta(*larger, dtype=dtype)],
                dim,
            )
    assert applied[0] and (applied[1] or not dtype.is_floating_point)


def test_shapes_that_do_not_fit_are_left_to_torch() -> None:
    x = meta(2, 4, 5, 5)
    wrong = [
        (aten.add.Tensor, (x, meta(3))),
        (aten.mm.default, (meta(2, 3), meta(4, 5))),
        (aten.bmm.default, (meta(2, 3, 4), meta(2, 3, 4))),
        (aten.addmm.default, (meta(7), meta(2, 3), meta(3, 4))),
        (aten.cat.default, ([meta(2, 3), meta(4, 5)], 0)),
        (aten.native_layer_norm.default, (x, [7], None, None, 1e-5)),
    ]
    kernels = MetaKernels()
    for func, args in wrong:
        assert QUICK[func](*args) is None
        with pytest.raises((RuntimeError, IndexError)):
            kernels.run(func, args, {})
    # torch does not look at these on meta either; what it says stands
    assert QUICK[aten._softmax.default](x, 4, False) is None
    geometry = (None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1)
    assert QUICK[aten.convolution.default](x, meta(2, 3, 1, 1), *geometry) is None


def test_remembered_layouts_are_torchs() -> None:
    kernels = MetaKernels()
    x = meta(2, 8, 6, 6)
    views = [x, x.transpose(1, 2), x[..., ::2], x.to(torch.float64), meta(2, 8, 3, 3)]
    for view in views * 2:
        for func, args in [
            (aten.mean.dim, (view, [2, 3], True)),
            (aten.avg_pool2d.default, (view, [2, 2])),
            (aten.clone.default, (view,)),
            (aten.add.Tensor, (view, view.transpose(0, 1).transpose(0, 1))),
            (aten.var_mean.correction, (view, [1])),
        ]:
            assert layouts(kernels.run(func, args, {})) == layouts(func(*args))
    again = kernels.run(aten.clone.default, (x,), {})
    assert again is not kernels.run(aten.clone.default, (x,), {})


def test_operators_with_side_effects_always_run() -> None:
    kernels = MetaKernels()
    x = meta(2, 3)
    assert kernels.run(aten.relu_.default, (x,), {}) is x
    for func, *rest in [(aten.t.default,), (aten._unsafe_view.default, [3, 2])] * 2:
        view = kernels.run(func, (x, *rest), {})
        assert view.untyped_storage()._cdata == x.untyped_storage()._cdata
