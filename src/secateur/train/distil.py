"""Distillation: an objective in which a student follows a teacher.

`distilled(loss_fn, teacher)` is what `finetune` takes as its `objective`. The teacher is frozen, in
eval mode and without gradients; it may be another architecture, pruned, in lower precision, on
another device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from secateur.core.errors import TrainError
from secateur.core.modes import evaluating
from secateur.train.batches import device_of, predict, split_batch, to_device
from secateur.train.distil_features import Width, projected, width_between
from secateur.train.distil_outputs import Logits
from secateur.train.distil_terms import Seen, Term
from secateur.train.objective import LossFn, outputs_for, task_loss
from secateur.train.taps import Pairs, tapped

SOFT = (Logits(),)
SEED = 0  # of the projections' first weights


def distilled(
    loss_fn: LossFn | None,
    teacher: nn.Module,
    *,
    terms: Sequence[Term] = SOFT,
    hard: float = 0.5,
    teacher_inputs: Callable[[Any], Any] | None = None,
) -> Distilled:
    """The objective ``hard * loss + sum of weight * term``, for `finetune(..., objective=...)`.

    loss_fn: of outputs and labels, None for the model's own. terms: what is followed, see `Logits`,
    `Outputs`, `Features`, `AttentionMaps` and `AttentionTransfer`. hard: weight of the task's own
    loss; with 0 no labels are needed. teacher_inputs: makes the teacher's batch of the student's,
    for a teacher that takes other inputs.

    >>> from secateur.train import FinetuneSettings, finetune
    >>> teacher, student = nn.Linear(4, 3), nn.Linear(4, 3)
    >>> data = [(torch.randn(8, 4), torch.zeros(8, dtype=torch.int64))]
    >>> objective = distilled(nn.CrossEntropyLoss(), teacher, terms=(Logits(temperature=2.0),))
    >>> len(finetune(student, data, settings=FinetuneSettings(epochs=2), objective=objective).rows)
    2
    """
    if not terms:
        raise ValueError("give at least one term to follow, for example terms=(Logits(),)")
    return Distilled(loss_fn, teacher, tuple(terms), hard, teacher_inputs)


class Distilled:
    """An objective that follows a teacher; see `distilled`.

    In a training loop of one's own call `prepare_(model, batch)` first, and give the optimizer its
    `parameters()` too where features are projected. Under the Hugging Face Trainer, `compute_loss`
    of a subclass returns ``objective(model, inputs)``; in Lightning `training_step` does.
    """

    def __init__(
        self,
        loss_fn: LossFn | None,
        teacher: nn.Module,
        terms: tuple[Term, ...],
        hard: float,
        teacher_inputs: Callable[[Any], Any] | None,
    ) -> None:
        self.loss_fn, self.teacher, self.terms, self.hard = loss_fn, teacher, terms, hard
        self.teacher_inputs = teacher_inputs
        self._asked = {key: value for term in terms for key, value in term.asks.items()}
        self._pairs: tuple[Pairs, ...] | None = None
        self._widths: dict[str, Width] = {}
        self._projections = nn.ModuleDict()

    def __call__(self, model: nn.Module, batch: Any) -> Tensor:
        if self._pairs is None:
            self.prepare_(model, batch)
            if self._widths:
                raise TrainError(
                    "the features are projected, and the projections must be trained: call "
                    "objective.prepare_(model, batch) before the optimizer is made, and give it "
                    "objective.parameters() as well"
                )
        student, ours, teacher, theirs = self._run(model, batch)
        total = torch.zeros((), device=device_of(model))
        if self.hard:
            total = total + self.hard * task_loss(model, student, batch, self.loss_fn)
        for k, term in enumerate(self.terms):
            seen = Seen(batch, student, teacher, self._features(k, ours, theirs))
            total = total + term.weight * term.loss(seen)
        return total

    def prepare_(self, model: nn.Module, batch: Any) -> None:
        """Pair the layers, and make projections for those whose widths differ, seen on a batch.

        Raises: TrainError when the teacher does not go with this student or batch.
        """
        _check_teacher(model, self.teacher, translated=self.teacher_inputs is not None)
        self._pairs = tuple(term.pairs(model, self.teacher) for term in self.terms)
        self._widths, self._projections = {}, nn.ModuleDict()
        with evaluating(model), torch.no_grad():
            _, ours, _, theirs = self._run(model, batch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            for k, term in enumerate(self.terms):
                if term.projects:
                    self._make_projections_(k, ours, theirs)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Those of the projections."""
        return self._projections.parameters()

    def state_dict(self) -> dict[str, Tensor]:
        """The projections' weights."""
        return dict(self._projections.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the projections' weights back."""
        self._projections.load_state_dict(state)

    def _make_projections_(
        self, k: int, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> None:
        assert self._pairs is not None
        for n, pair in enumerate(self._pairs[k]):
            student, teacher = _feature(ours, pair[0]), _feature(theirs, pair[1])
            width = width_between(student, teacher, pair)
            if width is not None:
                key = f"{k}_{n}"
                linear = nn.Linear(width.student, width.teacher, bias=False)
                self._projections[key] = linear.to(student.device)
                self._widths[key] = width

    def _features(
        self, k: int, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]
    ) -> tuple[tuple[Tensor, Tensor], ...]:
        assert self._pairs is not None
        found = []
        for n, pair in enumerate(self._pairs[k]):
            student, key = _feature(ours, pair[0]), f"{k}_{n}"
            if key in self._widths:
                linear = self._projections[key]
                assert isinstance(linear, nn.Linear)
                student = projected(student.to(linear.weight.dtype), self._widths[key], linear)
            found.append((student, _feature(theirs, pair[1])))
        return tuple(found)

    def _run(
        self, model: nn.Module, batch: Any
    ) -> tuple[Any, dict[str, Tensor], Any, dict[str, Tensor]]:
        """Outputs and tapped features of the student, and of the teacher."""
        assert self._pairs is not None
        pairs = [pair for pairs in self._pairs for pair in pairs]
        with tapped(model, {pair[0] for pair in pairs}) as ours:
            student = outputs_for(model, _labelled(batch), **self._asked)
        given = batch if self.teacher_inputs is None else self.teacher_inputs(batch)
        with tapped(self.teacher, {pair[1] for pair in pairs}) as theirs:
            teacher = _taught(self.teacher, given, self._asked)
        return student, ours, teacher, theirs


def _labelled(batch: Any) -> Any:
    """A batch in the form `(x, ..., y)`; one without labels gets an empty one."""
    if isinstance(batch, Mapping) or (isinstance(batch, list | tuple) and len(batch) > 1):
        return batch
    return (*batch, None) if isinstance(batch, list | tuple) else (batch, None)


def _taught(teacher: nn.Module, batch: Any, asked: Mapping[str, Any]) -> Any:
    """The teacher's outputs. Raises: TrainError when it does not understand the batch."""
    device, dtype = device_of(teacher), _dtype_of(teacher)
    batch = pytree.tree_map_only(Tensor, lambda t: _as_floats(t, dtype), to_device(batch, device))
    with evaluating(teacher), torch.no_grad():
        try:
            if isinstance(batch, Mapping):
                return teacher(**{k: v for k, v in batch.items() if k != "labels"}, **asked)
            return predict(teacher, split_batch(_labelled(batch))[0])
        except (TypeError, RuntimeError, IndexError, ValueError) as error:
            raise TrainError(
                f"the teacher {type(teacher).__name__} does not take a batch of "
                f"{_described(batch)} ({str(error).splitlines()[0]}); take a teacher with the "
                "student's inputs and vocabulary, or give teacher_inputs=lambda batch: ..., which "
                "makes its batch"
            ) from error


def _check_teacher(student: nn.Module, teacher: nn.Module, *, translated: bool) -> None:
    held = {id(parameter) for parameter in student.parameters()}
    if any(id(parameter) in held for parameter in teacher.parameters()):
        raise TrainError(
            "the teacher shares weights with the student, so it would change with it; give a copy, "
            "teacher=copy.deepcopy(model), taken before the cut"
        )
    sizes = [getattr(getattr(m, "config", None), "vocab_size", None) for m in (student, teacher)]
    if None not in sizes and sizes[0] != sizes[1] and not translated:
        raise TrainError(
            f"the teacher has a vocabulary of {sizes[1]} tokens and the student one of {sizes[0]}, "
            "so the same token ids mean other words to it; take a teacher with the student's "
            "tokenizer, or give teacher_inputs=lambda batch: ..., which makes its batch"
        )


def _feature(seen: Mapping[str, Tensor], path: str) -> Tensor:
    if path not in seen:
        raise TrainError(
            f"the module {path!r} gave no tensor in the forward: it did not run, or puts out "
            "something else; name another layer"
        )
    return seen[path]


def _dtype_of(model: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def _as_floats(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    return tensor.to(dtype) if dtype is not None and tensor.is_floating_point() else tensor


def _described(batch: Any) -> str:
    if isinstance(batch, Mapping):
        parts = [(f"{key} ", value) for key, value in batch.items()]
    else:
        parts = [("", value) for value in split_batch(_labelled(batch))[0]]
    return ", ".join(
        f"{name}{tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__}"
        for name, v in parts
    )
