"""What a training of several ranks refuses, without starting any."""

from __future__ import annotations

import pytest

from secateur.core.errors import TrainError
from secateur.core.world import ALONE, Alone
from secateur.engines.parallel.none import Whole
from secateur.engines.tensor_parallel.files import PartFiles
from secateur.train.together import check_together

TWO = Alone(size=2)


class SharedOut(Whole):
    """Ranks with a part of the units each, and the same rows."""

    @property
    def files(self) -> PartFiles:
        return PartFiles(world=TWO, inner=TWO, across=ALONE, layout=None)

    @files.setter
    def files(self, given: None) -> None:
        """Theirs are not given."""


def check(precision: str) -> None:
    check_together(SharedOut(world=TWO), (), optimizer=None, learnt=False, precision=precision)


def test_an_overflow_that_one_rank_alone_would_see_is_refused() -> None:
    with pytest.raises(TrainError, match=r'Use precision="bfloat16".*parallel: fsdp'):
        check("float16")
    check("bfloat16")
