"""Which parameters a mask may lie on: every floating-point one of two or more dimensions.

Biases and scales of normalisations are left alone. A parameter that several modules share is one
target, with one mask in all of its places. `skip` leaves parameters and whole modules out by name.
"""

from __future__ import annotations

import fnmatch
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd
from torch.nn.utils import parametrize

from secateur.core.errors import ScoreError
from secateur.core.fingerprint import named_modules
from secateur.masks.dense import dense_leaves, other_parametrizations
from secateur.masks.keys import INFINITY
from secateur.masks.parametrization import Place, mask_at, original


@dataclass(frozen=True)
class Target:
    """One parameter. name: the first it has in the model without masks. places: all that share
    it. kept: of the mask it has already. input_dim: along which its inputs lie."""

    name: str
    parameter: nn.Parameter
    places: tuple[Place, ...]
    kept: Tensor | None
    input_dim: int


def targets(model: nn.Module, *, skip: Iterable[str] = ()) -> list[Target]:
    """The targets in the model's order.

    skip: names of parameters or modules, or patterns such as "*.embed*"; "fc" covers "fc.weight".
    Raises: ScoreError for weights without values or of a type that has no order; ValueError for a
    name in `skip` that nothing has, and a model without targets.
    """
    found: dict[int, Target] = {}
    names: list[str] = []
    patterns = dict.fromkeys(skip, False)
    skipped: set[int] = set()
    for name, module, leaf in _weights(model, patterns):
        parameter = original(module, leaf)
        names.append(name)
        if _is_skipped(name, patterns):
            skipped.add(id(parameter))
            found.pop(id(parameter), None)
        if id(parameter) in skipped or parameter.ndim < 2 or not parameter.numel():
            continue
        known = found.get(id(parameter))
        first, places = (known.name, known.places) if known else (name, ())
        mask = mask_at(module, leaf)
        kept = mask.kept if mask is not None else known.kept if known else None
        places = (*places, (module, leaf))
        found[id(parameter)] = Target(first, parameter, places, kept, _input_dim(module))
    unknown = [pattern for pattern, used in patterns.items() if not used]
    if unknown:
        raise ValueError(f"skip names {unknown[0]!r}, which is none of {', '.join(names[:6])}, ...")
    if not found:
        raise ValueError(
            "no parameter of two or more dimensions is left to mask; skip less, or mask a plain "
            "tensor with prune_vector(weights, sparsity=0.5)"
        )
    _check(found.values())
    return list(found.values())


def _weights(model: nn.Module, patterns: dict[str, bool]) -> Iterator[tuple[str, nn.Module, str]]:
    """Every floating-point parameter under its name without masks, and where it is."""
    for path, module in named_modules(model):
        if isinstance(module, parametrize.ParametrizationList):
            continue
        inner = f"{path}." if path else ""
        for leaf in dense_leaves(module):
            if original(module, leaf).is_floating_point():
                yield inner + leaf, module, leaf
        for leaf in other_parametrizations(module):
            if getattr(module, leaf).ndim > 1 and not _is_skipped(inner + leaf, patterns):
                warnings.warn(
                    f"{inner}{leaf} has a parametrization of its own and gets no mask; remove it "
                    "first, torch.nn.utils.parametrize.remove_parametrizations(module, "
                    f"{leaf!r}), or name it in skip",
                    stacklevel=5,
                )


def _is_skipped(name: str, patterns: dict[str, bool]) -> bool:
    parts = name.split(".")
    prefixes = [".".join(parts[:k]) for k in range(1, len(parts) + 1)]
    hits = [p for p in patterns if any(fnmatch.fnmatchcase(part, p) for part in prefixes)]
    for pattern in hits:
        patterns[pattern] = True
    return bool(hits)


def _check(found: Iterable[Target]) -> None:
    for target in found:
        if target.parameter.is_meta:
            raise ScoreError(
                f"{target.name} is on the meta device and has no values to choose from; load the "
                "model's weights before masking"
            )
        if target.parameter.dtype not in INFINITY:
            raise ScoreError(
                f"{target.name} is of type {target.parameter.dtype}, which has no order here; "
                f"convert the model, for example model.bfloat16(), or skip=({target.name!r},)"
            )


def _input_dim(module: nn.Module) -> int:
    """Along which dimension of its weight a module's inputs lie."""
    transposed = isinstance(module, _ConvTransposeNd)
    # the linear layer of GPT-2 in transformers, [inputs, outputs]
    gpt2 = type(module).__name__.removeprefix("Parametrized") == "Conv1D"
    return 0 if transposed or gpt2 else 1
