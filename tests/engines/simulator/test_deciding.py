"""What is sent for a plan, against the payload that scoring itself counts."""

from __future__ import annotations

import torch

from secateur.core.world import Alone
from secateur.criteria.exact_sums import ExactSums
from secateur.engines.mesh import Mesh
from secateur.engines.simulator.collectives import NCCL, all_reduce
from secateur.engines.simulator.deciding import decisions
from secateur.engines.simulator.workload import Unit, Weight, Workload

WORK = Workload("work", ((Unit("all", (Weight(30, 20), Weight(7, trainable=False))), 1),))


class Counting(Alone):
    """A world of two, of which the other has what this one has, that counts what is summed."""

    sent = 0

    def sum_(self, tensors: object, *, what: str) -> None:
        assert isinstance(tensors, list)
        for tensor in tensors:
            Counting.sent += tensor.numel() * tensor.element_size()

    def gather(self, value: object, *, what: str) -> list[object]:  # type: ignore[override]
        return [value, value]


def test_gradient_scores_are_as_many_bytes_as_exact_sums_send() -> None:
    sums = ExactSums()
    sums.add_({"weight": torch.randn(30, 20)})
    Counting.sent = 0
    sums.reduce_(Counting(size=2), what="gradients")
    assert Counting.sent == 600 * 2 * 8
    found = decisions(WORK, Mesh(dp=2), NCCL)
    assert found["gradient_scores"] == all_reduce(Counting.sent, 2, NCCL)


def test_only_shards_need_rounds_to_find_a_threshold() -> None:
    assert decisions(WORK, Mesh(dp=8), NCCL)["selection"].sent_bytes == 0
    small, large = (decisions(WORK, mesh, NCCL)["selection"] for mesh in (Mesh(fsdp=2), Mesh(tp=8)))
    assert 0 < small.sent_bytes < large.sent_bytes < 100_000


def test_one_rank_decides_alone() -> None:
    assert all(each.sent_bytes == 0 for each in decisions(WORK, Mesh(), NCCL).values())
