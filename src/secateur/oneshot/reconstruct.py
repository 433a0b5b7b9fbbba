"""The compensating weight update: what is left of a layer is fitted to the dense layer's outputs.

Layer by layer, from the inputs to the outputs, every weight of the cut model is fitted by least
squares so that, on the inputs that it gets in the cut model as fitted so far, it makes what the
dense layer made on the dense inputs. So errors do not pile up. Where the outputs are added to a
stream they also make up for what the cut model's stream lacks by then. Normalisations get scales
and biases in the same way. Calibration data are enough; there are no labels and no training.

Source: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, equation 5
and section 3.3, arXiv 1707.06168 (least squares on the outputs of the dense layer, from the inputs
of the pruned one; at the end of a residual branch on what the sum lacks). Deviations: a ridge
towards the weights that were kept, chosen on a quarter of the batches; biases and normalisations
are fitted as well, and every layer behind the first cut, whether or not it lost inputs.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from secateur.core.depth import renumbered, within
from secateur.core.errors import PlanMismatchError, ScoreError
from secateur.core.fingerprint import named_tensors
from secateur.core.modes import evaluating
from secateur.core.plan import Plan
from secateur.core.world import ALONE, World
from secateur.criteria.contractions import Use, showing_products
from secateur.criteria.patches import rows_of, weight_of
from secateur.criteria.running import run_batch
from secateur.criteria.shares import Shares, first_of, no_batch, repeatable, shared
from secateur.criteria.together import check_alike, together
from secateur.cut.apply import check_fingerprint
from secateur.oneshot.first_events import first_events
from secateur.oneshot.kept_outputs import Kept, Parameters, kept_outputs, sources
from secateur.oneshot.least_squares import Rows, fitted
from secateur.oneshot.pairs import Pair, pair_at
from secateur.oneshot.places import Place, places_of
from secateur.oneshot.streams import streams_of
from secateur.oneshot.walk import walks

POSITIONS = 1 << 13
"""Positions of a batch that a product is fitted to at most: neighbours in an image say the same."""
PER_FEATURE = 8
"""So many for each feature are enough, and `FEWEST`."""
FEWEST = 1 << 9
HELD = 4
"""Every fourth batch is held back to choose the ridge."""


def reconstruct_(
    small: nn.Module,
    model: nn.Module,
    *,
    plan: Plan,
    data: Iterable[Any],
    world: World = ALONE,
) -> nn.Module:
    """Fit the weights of `small`, which `cut(model, plan)` made, to what `model` returns; in place.

    data: calibration batches, of which targets are not looked at; several batches, since every
    fourth is held back to choose how far weights may move. Linear layers, convolutions, fused
    projections and normalisations are fitted; embeddings, recurrent and transposed layers, shared
    weights and what the first batch does not reach stay as the cut left them. `model` is unchanged.
    Memory: the activations of all batches at one layer, of both models; before, those of the
    first batch at all layers of one.

    world: ranks that fit together. Each is given the same models and the same data, whole, walks a
    part of the batches, and gets the same weights, bit for bit those of one process with as many
    threads as each of them has.

    Raises: PlanMismatchError when the plan is another model's or `small` was not cut by it;
    ScoreError when there is no data, or what a layer makes of it is NaN or infinite; EngineError
    when ranks hold different models. All ranks raise the same.
    """
    with together(world, what="the fit of a cut model") as ranks:
        check_fingerprint(model, plan)
        names = _dense_names(small, model, plan)
        for each in (small, model):
            check_alike(ranks, each, {"the plan": plan.hash})
        given = repeatable(shared(data, ranks))
        first = first_of(given)
        if not first:
            raise no_batch()
        _reconstruct_(_Both(small, model, plan, names, ranks), given, first[0])
    return small


@dataclass(frozen=True)
class _Both:
    """The cut and the dense model. names: the dense model's of the cut one's parameters."""

    small: nn.Module
    model: nn.Module
    plan: Plan
    names: Mapping[str, str]
    world: World


def _reconstruct_(both: _Both, given: Sequence[Any] | Shares, first: Any) -> None:
    small, model, names = both.small, both.model, both.names
    with evaluating(small), evaluating(model), showing_products(small):
        places = [place for place in places_of(small, first) if place.name in names]
        there = {place: Place(names[place.name], place.number) for place in places}
        start = time.perf_counter()
        added = [streams_of(each, partial(run_batch, each, first)) for each in (small, model)]
        seconds = both.world.gather(time.perf_counter() - start, what="speeds of ranks")
        streams = {
            place: (added[0][place], added[1][there[place]])
            for place in places
            if place in added[0] and there[place] in added[1]
        }
        besides = {place: two[0] for place, two in streams.items()}
        dense_besides = {there[place]: two[1] for place, two in streams.items()}
        own = list(enumerate(given))
        if isinstance(given, Shares):
            own = given.by_speed([1 / max(s, 1e-9) for s in seconds])
        batches = [batch for _, batch in own]
        with (
            walks(small, batches, set(places), besides) as cut,
            walks(model, batches, set(there.values()), dense_besides) as dense,
        ):
            for place in places:
                at = place, there[place]
                pairs = [
                    pair_at(two, at, number, streams.get(place))
                    for (number, _), two in zip(own, zip(cut, dense, strict=True), strict=True)
                ]
                layer = _Layer(both, place.name, names[place.name], len(given))
                _fit_(layer, pairs)
                for walk in cut:
                    walk.change()


@dataclass(frozen=True)
class _Layer:
    """One parameter in both models, by its name in each. batches: how many there are in all."""

    both: _Both
    name: str
    dense_name: str
    batches: int

    @property
    def small(self) -> nn.Module:
        """The cut model."""
        return self.both.small

    @property
    def plan(self) -> Plan:
        """What it was cut by."""
        return self.both.plan

    @property
    def parameters(self) -> Parameters:
        """The parameter in both models."""
        return Parameters(
            self.both.model.get_parameter(self.dense_name), self.small.get_parameter(self.name)
        )

    def checked(self, *tensors: Tensor) -> None:
        """Raises: ScoreError for values that nothing can be fitted to."""
        if not all(bool(tensor.isfinite().all()) for tensor in tensors):
            raise ScoreError(
                f"what {self.name} reads or makes holds NaN or infinite values on this data; "
                "check the calibration data, or run the models in float32"
            )


def _fit_(layer: _Layer, pairs: Sequence[Pair]) -> None:
    """Fit one weight to what happens at its place on each batch."""
    both = layer.both
    events = first_events(pairs, both.small, both.model, world=both.world)
    if events is None:
        return
    if isinstance(events.cut, Use) and isinstance(events.dense, Use):
        _fit_product_(layer, events.cut, events.dense, events.pairs)
    else:
        _fit_scaling_(layer, events.cut.bias, events.pairs)


def _fit_product_(layer: _Layer, first: Use, dense: Use, pairs: Sequence[Pair]) -> None:
    """Fit a weight, and the bias that its operator adds."""
    kept = kept_outputs(layer.plan, layer.dense_name, dense, first, of=layer.parameters)
    if kept is None:
        return
    start, rows = _start(layer.small, first), Rows()
    for pair in pairs:
        cut: Any = pair.cut
        wanted = _wanted(pair, kept)
        if wanted.shape != cut.made.shape:
            continue  # routed elsewhere: the rows of the two are not the same
        layer.checked(cut.read, wanted)
        held = _is_held(pair.number, layer.batches)
        for x_GNF, y_GNM in rows_of(cut, wanted, limit=_enough(start.shape[1])):
            rows.add_(_with_ones(_wide(x_GNF), cut.bias), _wide(y_GNM), held=held)
    best = _best(layer, rows, start, first.bias)
    if best is not None:
        _write_(layer.small, first, best)


def _best(layer: _Layer, rows: Rows, start: Tensor, bias: str | None) -> Tensor | None:
    """What fits the rows of all ranks, None where there are none but those held back."""
    world = layer.both.world
    sums, held = rows.take(world=world)
    if sums is None:
        return None
    return fitted(sums, start, held=held, free=int(bias is not None), world=world)


def _fit_scaling_(layer: _Layer, bias: str | None, pairs: Sequence[Pair]) -> None:
    """Fit a scale for each element, and the bias that its operator adds.

    What comes out is linear in both, so the outputs are enough: ``a * made + c``.
    """
    scale = layer.parameters.cut
    from_C = sources(layer.plan, layer.dense_name, of=layer.parameters)
    start = torch.zeros(scale.numel(), 1 + (bias is not None), 1, dtype=torch.float64)
    start[:, 0] = 1
    rows = Rows()
    for pair in pairs:
        cut: Any = pair.cut
        dense: Any = pair.dense
        wanted = dense.made.index_select(-1, from_C.to(dense.made.device))
        if wanted.shape != cut.made.shape:
            continue
        lacking = pair.lacking(from_C, -1)
        wanted = wanted if lacking is None else wanted + lacking
        layer.checked(cut.made, wanted)
        every = max(1, wanted.numel() // wanted.shape[-1] // _enough(start.shape[1]))
        made_CN1, wanted_CN1 = (
            _wide(t.flatten(0, -2)[::every]).T[:, :, None] for t in (cut.made, wanted)
        )
        held = _is_held(pair.number, layer.batches)
        rows.add_(_with_ones(made_CN1, bias), wanted_CN1, held=held)
    best = _best(layer, rows, start, bias)
    if best is None:
        return
    with torch.no_grad():
        factor = best[:, 0, 0].to(scale).reshape(scale.shape)
        scale.mul_(factor)
        if bias is not None:
            shift = layer.small.get_parameter(bias)
            shift.mul_(factor.reshape(shift.shape))
            shift.add_(best[:, 1, 0].to(shift).reshape(shift.shape))


def _enough(features: int) -> int:
    return min(POSITIONS, max(FEWEST, PER_FEATURE * features))


def _is_held(number: int, batches: int) -> bool:
    """Every fourth batch; of two or three the last."""
    return number % HELD == HELD - 1 or (1 < batches < HELD and number == batches - 1)


def _dense_names(small: nn.Module, model: nn.Module, plan: Plan) -> dict[str, str]:
    """The dense model's name of each parameter of the cut one. Raises: PlanMismatchError."""
    gone = plan.taken_out
    dense = {
        renumbered(name, gone): name
        for name, _ in named_tensors(model)
        if not within(name, plan.removed)
    }
    shapes = {name: tuple(tensor.shape) for name, tensor in named_tensors(model)}
    for name, tensor in small.named_parameters():
        known = dense.get(name)
        expected = None if known is None else shapes[known]
        if known is not None and known in plan.tensors:
            expected = plan.shape(known)
        if tuple(tensor.shape) != expected:
            raise PlanMismatchError(
                f"{name} of the small model has shape {tuple(tensor.shape)}, the plan makes it "
                f"{expected or 'nothing'}; pass small=cut(model, plan)"
            )
    return dense


def _wanted(pair: Pair, kept: Kept) -> Tensor:
    """What the cut layer is to make."""
    dense: Any = pair.dense
    made = dense.made.index_select(1, kept.indices_M.to(dense.made.device))
    along = [1, -1, *(1 for _ in range(made.dim() - 2))]
    wanted: Tensor = made * kept.factors_M.to(made).reshape(along)
    lacking = pair.lacking(kept.indices_M, 1) if bool((kept.factors_M == 1).all()) else None
    return wanted if lacking is None or lacking.shape != wanted.shape else wanted + lacking


def _with_ones(x_GNF: Tensor, bias: str | None) -> Tensor:
    """A constant feature behind the others, where there is a bias to learn it."""
    if bias is None:
        return x_GNF
    return torch.cat([x_GNF, torch.ones_like(x_GNF[..., :1])], dim=2)


def _start(small: nn.Module, use: Use) -> Tensor:
    """The present weight and bias as the matrix of each group, float64."""
    weight_GFM = weight_of(use).detach().double().cpu()
    if use.bias is None:
        return weight_GFM.contiguous()
    bias = small.get_parameter(use.bias).detach().double().cpu()
    return torch.cat([weight_GFM, bias.reshape(len(weight_GFM), 1, -1)], dim=1)


def _write_(small: nn.Module, use: Use, best_GFM: Tensor) -> None:
    """Put a fitted matrix back where the use found it."""
    with torch.no_grad():
        if use.bias is not None:
            bias = small.get_parameter(use.bias)
            bias.copy_(best_GFM[:, -1].reshape(bias.shape))
            best_GFM = best_GFM[:, :-1]
        if use.window is None:
            use.weight.copy_(best_GFM[0])
        else:
            use.weight.copy_(best_GFM.transpose(1, 2).reshape(use.weight.shape))


def _wide(values: Tensor) -> Tensor:
    """In float32 at least: products of one batch, which are summed up in float64."""
    return values if values.dtype.itemsize >= 4 else values.float()
