"""Where the ranks must meet when some axes of a model are shared out, found by following a forward.

Every tensor is whole (the same on all ranks), a piece (it has a shared axis, and each rank its
units of it) or a partial sum (what a contraction over the axis leaves). A partial sum is added up
where a module returns it. Backwards it is the other way round: a whole tensor that is read
together with pieces gets a partial gradient, which is added up where a module is given the tensor
or returns it; a parameter's where it is read. A module's hooks do all of that.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Set
from dataclasses import dataclass

from secateur.core.dims import Axis, Dim, axes_of
from secateur.engines.tensor_parallel.operators import (
    adds,
    draws,
    is_contraction,
    is_local,
    makes_pieces,
    passes_sums,
)
from secateur.engines.tensor_parallel.tape import Place, Step, Tape


class Refused(Exception):
    """Why these axes cannot be shared out."""


@dataclass(frozen=True, slots=True)
class Spot:
    """A tensor that a module is given, or one that it returns."""

    module: str
    returned: bool
    place: Place


@dataclass(frozen=True, slots=True)
class Reading:
    """A parameter or buffer by its name, as a running module reads it."""

    module: str
    tensor: str


@dataclass(frozen=True, slots=True)
class Meetings:
    """Where ranks meet, and what each does by itself.

    sums: partial sums that are added up in the forward. copies: whole tensors whose gradients are.
    gradients: parameters whose gradients are. portions: what is added to a partial sum, of which
    each rank adds its portion. own_random, common_random: modules that draw numbers for pieces, so
    each rank its own, and modules inside those that draw the same ones on every rank.
    """

    sums: frozenset[Spot] = frozenset()
    copies: frozenset[Spot] = frozenset()
    gradients: frozenset[Reading] = frozenset()
    portions: frozenset[Reading] = frozenset()
    own_random: frozenset[str] = frozenset()
    common_random: frozenset[str] = frozenset()


def covered(dim: Dim, shared: frozenset[int]) -> bool:
    """Whether every index of a dimension belongs to some unit of exactly one shared axis.

    >>> heads, width = Axis(0, 4), Axis(1, 8)
    >>> covered((heads, width), frozenset({0})), covered((heads, width), frozenset({0, 1}))
    (True, False)
    """
    found = 0
    for factor in dim:
        if isinstance(factor, Axis):
            found += factor.index in shared
        elif any(axis.index in shared for axis in axes_of((factor,))):
            if not all(covered(part, shared) for part in factor.parts):
                return False
            found += 1
    return found == 1


def follow(tape: Tape, shared: frozenset[int]) -> Meetings:
    """Where ranks that share out these axes must meet. Raises: Refused with the reason."""
    try:
        return _Following(tape, shared, tape.trained | tape.inputs).run()
    except Refused:
        # gradients of the model's own inputs, masks among them, are given up before the axes
        return _Following(tape, shared, tape.trained).run()


class _Following:
    """One walk along the tape."""

    def __init__(self, tape: Tape, shared: frozenset[int], differentiated: Set[int]) -> None:
        self.tape, self.differentiated = tape, differentiated
        self.along = _pieces(tape, shared)
        self.sums: dict[Spot, set[int]] = {}
        self.copies: dict[Spot, set[int]] = {}
        self.gradients: dict[Reading, set[int]] = {}
        self.portions: dict[Reading, set[int]] = {}
        self.entered: dict[int, set[int]] = {}
        """Whole tensors and the steps through which partial gradients come back to them."""

    def run(self) -> Meetings:
        touched = {n for t in self.along for n in self.tape.read_by.get(t, ())}
        touched |= {n for t in self.along for n in self.tape.made_by.get(t, ())}
        for number in sorted(touched):
            self._step(number, self.tape.steps[number])
        self._enter()
        self._check_every_call()
        self._check_every_reading()
        own, common = self._random(touched)
        return Meetings(
            frozenset(self.sums),
            frozenset(self.copies),
            frozenset(self.gradients),
            frozenset(self.portions),
            own,
            common,
        )

    def _step(self, number: int, step: Step) -> None:
        ins = [t for t in step.ins if id(t) in self.along]
        outs = [t for t in step.outs if id(t) in self.along]
        if outs:
            if not ins and not makes_pieces(step):
                raise Refused(f"{self._where(step)} makes units of it in a way that is not known")
            if ins and not is_local(step, self.along.get(id(step.ins[0]))):
                raise Refused(f"{self._where(step)} may look at several of its units at once")
            if any(id(t) not in self.along and id(t) in self.tape.read_by for t in step.outs):
                raise Refused(f"{self._where(step)} makes something of it that is no unit's own")
            for t in step.ins:
                if id(t) not in self.along and id(t) in self.differentiated:
                    self.entered.setdefault(id(t), set()).add(number)
            return
        if not step.outs or not is_contraction(step):
            raise Refused(f"{self._where(step)} is no sum over its units")
        for t in step.ins:
            if id(t) not in self.along:
                self._portion(number, id(t))
        self._leave(number, id(step.outs[0]))

    def _portion(self, number: int, tensor: int) -> None:
        """What is added to a partial sum is a parameter, so that each rank can add its portion."""
        name, step = self.tape.names.get(tensor), self.tape.steps[number]
        if name is None:
            raise Refused(f"{self._where(step)} adds what is no parameter to a sum over its units")
        self.portions.setdefault(Reading(self._module(step), name), set()).add(number)

    def _leave(self, number: int, tensor: int) -> None:
        """Follow a partial sum to where a module returns it."""
        pending, seen = [(number, tensor)], {tensor}
        while pending:
            number, tensor = pending.pop()
            spot = self._returned(tensor, number)
            if spot is not None:
                continue
            if tensor in self.tape.finals:
                raise Refused("no module returns the sum over its units before the model's end")
            for reader in self.tape.read_by.get(tensor, ()):
                step = self.tape.steps[reader]
                if adds(step):
                    for other in step.ins:
                        if id(other) != tensor and id(other) not in seen:
                            self._portion(reader, id(other))
                elif not passes_sums(step):
                    raise Refused(f"{self._where(step)} reads a sum over its units too early")
                for out in step.outs:
                    if id(out) not in seen:
                        seen.add(id(out))
                        pending.append((reader, id(out)))

    def _returned(self, tensor: int, made: int) -> Spot | None:
        """The innermost call that a partial sum leaves, read by nothing inside."""
        for number in reversed(self.tape.returned_by.get(tensor, ())):
            call = self.tape.calls[number]
            inside = [n for n in self.tape.read_by.get(tensor, ()) if call.holds(n) and n != made]
            if call.holds(made) and not inside:
                for place, one in call.returned.items():
                    if id(one) == tensor:
                        spot = Spot(call.module, True, place)
                        self.sums.setdefault(spot, set()).add(number)
                        return spot
        return None

    def _enter(self) -> None:
        """Find a place for the sum of every partial gradient, the last tensors first."""
        queue = [(-self._born(tensor), tensor) for tensor in self.entered]
        heapq.heapify(queue)
        done: set[int] = set()
        while queue:
            _, tensor = heapq.heappop(queue)
            if tensor in done:
                continue
            done.add(tensor)
            for number in self._sum_gradient(tensor, self.entered[tensor]):
                for one in self.tape.steps[number].ins:
                    if id(one) in self.differentiated:
                        self.entered.setdefault(id(one), set()).add(number)
                        heapq.heappush(queue, (-self._born(id(one)), id(one)))

    def _born(self, tensor: int) -> int:
        return self.tape.made_by.get(tensor, [-1])[0]

    def _sum_gradient(self, tensor: int, partial: set[int]) -> list[int]:
        """Sum a tensor's gradient, of which these readers give a part; or return the steps that
        made it, for its parts to be summed further back."""
        tape = self.tape
        if tensor in tape.names:
            if tensor in self.differentiated:
                for number in partial:
                    reading = Reading(self._module(tape.steps[number]), tape.names[tensor])
                    self.gradients.setdefault(reading, set()).add(number)
            return []
        outside = {n for n in partial if not self._given(tensor, n, partial)}
        if not outside or tensor not in self.differentiated:
            return []
        where = self._where(tape.steps[min(outside)])
        if set(tape.read_by[tensor]) != partial or tensor in tape.finals:
            raise Refused(f"the gradient of what {where} reads has no place where it can be summed")
        for number in tape.returned_by.get(tensor, ()):
            call = tape.calls[number]
            if not any(call.holds(n) for n in partial):
                self._copy(tensor, number, returned=True)
                return []
        made = tape.made_by.get(tensor, [])
        if not made or any(id(t) in self.along for n in made for t in tape.steps[n].ins):
            raise Refused(f"the gradient of what {where} reads cannot be summed")
        return made

    def _given(self, tensor: int, reader: int, partial: set[int]) -> bool:
        """Sum the gradient where a call around this reader, the outermost, is given the tensor."""
        tape = self.tape
        for number in tape.given_to.get(tensor, ()):
            call = tape.calls[number]
            inside = {n for n in tape.read_by[tensor] if call.holds(n)}
            if reader not in inside or inside - partial:
                continue
            if any(id(one) == tensor for one in call.returned.values()):
                continue
            self._copy(tensor, number, returned=False)
            return True
        return False

    def _copy(self, tensor: int, number: int, *, returned: bool) -> None:
        """At every place where a call has the tensor: attention is given one three times."""
        call = self.tape.calls[number]
        for place, one in (call.returned if returned else call.given).items():
            if id(one) == tensor:
                self.copies.setdefault(Spot(call.module, returned, place), set()).add(number)

    def _check_every_call(self) -> None:
        """A module's hooks run at every call, so every call must want them."""
        calls: dict[str, set[int]] = {}
        for number, call in enumerate(self.tape.calls):
            calls.setdefault(call.module, set()).add(number)
        for spot, wanted in (*self.sums.items(), *self.copies.items()):
            if calls[spot.module] != wanted:
                raise Refused(f"{spot.module or 'the model'} is called in two ways")

    def _check_every_reading(self) -> None:
        """Within a module, a parameter is read in one way."""
        ids = {name: tensor for tensor, name in self.tape.names.items()}
        for reading, wanted in (*self.gradients.items(), *self.portions.items()):
            readers = self.tape.read_by[ids[reading.tensor]]
            own = {n for n in readers if self._module(self.tape.steps[n]) == reading.module}
            if own != wanted:
                raise Refused(f"{reading.module} reads {reading.tensor} in two ways")

    def _random(self, touched: Iterable[int]) -> tuple[frozenset[str], frozenset[str]]:
        """Modules whose random numbers are each rank's own, and those inside that draw others."""
        tape, own = self.tape, set[str]()
        for number in touched:
            step = tape.steps[number]
            if draws(step) and any(id(t) in self.along for t in step.outs):
                own.add(self._module(step))
        common: set[str] = set()
        for step in tape.steps if own else ():
            if draws(step) and not any(id(t) in self.along for t in step.outs):
                around = {tape.calls[n].module for n in step.running}
                if self._module(step) in own:
                    raise Refused(f"{self._where(step)} draws for its units and for the whole")
                if around & own:
                    common.add(self._module(step))
        return frozenset(own), frozenset(common)

    def _module(self, step: Step) -> str:
        return self.tape.calls[step.running[-1]].module if step.running else ""

    def _where(self, step: Step) -> str:
        return f"{step.name} in {self._module(step) or 'the model'}"


def _pieces(tape: Tape, shared: frozenset[int]) -> dict[int, int]:
    """The dimension in which each tensor that has a shared axis has it.

    Raises: Refused where a tensor has two, or has what is whole beside it in one dimension.
    """
    found: dict[int, int] = {}
    for tensor, dims in tape.tensors():
        along = [k for k, dim in enumerate(dims) if any(a.index in shared for a in axes_of(dim))]
        if not along:
            continue
        if len(along) > 1:
            raise Refused("a tensor has two dimensions that would be shared out")
        if not covered(dims[along[0]], shared):
            raise Refused("in one dimension it stands beside what is not shared out")
        found[tensor] = along[0]
    return found
