"""A model that ranks share out computes, learns and is cut as the whole one, in float64."""

from __future__ import annotations

import threading

import pytest
import torch
from comparing import Case, adamw, case_of, check_equal, momentum, outputs_and_loss, train_
from networks import LARGE, SMALL
from threads import ThreadWorld, on_ranks
from torch import Tensor, nn

import secateur as sc
from secateur.core.copies import copied
from secateur.core.errors import CutError, EngineError, PlanMismatchError
from secateur.core.fingerprint import fingerprint
from secateur.cut.apply import cut, cut_
from secateur.engines.tensor_parallel.balanced import skeleton
from secateur.engines.tensor_parallel.clipping import clip_gradients_
from secateur.engines.tensor_parallel.cutting import cut_parallel_
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.whole import fill_, part_of, whole_state, whole_tensors

SLOW = [
    *((name, 2) for name in ("encoder", "gpt2", "llama")),
    ("residual", 3),
    ("one_kv_head", 3),
    ("llama", 3),
    *((name, size) for name in LARGE for size in (2, 4)),
]
ALL = [
    *((name, 2) for name in ("plain_chain", "residual", "decoder", "one_kv_head", "bert")),
    ("decoder", 4),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
]


def _made(name: str) -> tuple[nn.Module, object]:
    return (SMALL | LARGE)[name]()


@pytest.mark.parametrize(("name", "size"), ALL)
def test_outputs_gradients_and_training(name: str, size: int) -> None:
    case = case_of(_made(name), size=size)
    assert case.plan.parameters > 0.3
    whole = copied(case.model).train()
    outs, loss = outputs_and_loss(whole, case.inputs)
    loss.backward()
    gradients = {n: p.grad for n, p in whole.named_parameters() if p.grad is not None}
    whole.zero_grad()
    losses = train_(whole, case.inputs, adamw(whole), steps=5)

    def work(world: ThreadWorld) -> tuple[list[Tensor], dict[str, Tensor], list[float], dict]:
        local = case.local(world).train()
        own, loss = outputs_and_loss(local, case.inputs)
        loss.backward()
        found = {n: p.grad.clone() for n, p in local.named_parameters() if p.grad is not None}
        local.zero_grad()
        trained = train_(local, case.inputs, adamw(local), steps=5)
        return own, found, trained, dict(whole_tensors(local, case.plan, world))

    ranks, sent = on_ranks(size, work)
    assert sent > 0
    final = whole.state_dict()
    for rank, (own, found, trained, joined) in enumerate(ranks):
        for mine, theirs in zip(own, outs, strict=True):
            check_equal(mine, theirs, "output")
        assert found.keys() == gradients.keys()
        for parameter, gradient in found.items():
            expected = part_of(gradients[parameter], parameter, case.plan, rank)
            check_equal(gradient, expected, parameter)
        torch.testing.assert_close(trained, losses, rtol=1e-11, atol=1e-11)
        for tensor, value in joined.items():
            torch.testing.assert_close(value, final[tensor], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", ["residual", "decoder"])
def test_evaluation_mode_and_a_copy_of_a_rank(name: str) -> None:
    case = case_of(_made(name), size=2)
    outs, _ = outputs_and_loss(case.model.eval(), case.inputs)

    def work(world: ThreadWorld) -> Tensor:
        local = copied(case.local(world)).eval()
        return outputs_and_loss(local, case.inputs)[0][0]

    for found in on_ranks(2, work)[0]:
        check_equal(found, outs[0], name)


def _cut_case(name: str, size: int) -> tuple[Case, sc.Plan]:
    case = case_of(_made(name), size=size)
    scores = sc.score(case.graph, case.model, criterion="l2")
    return case, sc.plan(case.graph, scores, budget="params=70%", tensor_parallel=size)


@pytest.mark.parametrize(("name", "size"), [("residual", 2), ("decoder", 2), ("plain_chain", 3)])
def test_a_cut_of_what_ranks_hold_is_the_cut_of_the_whole(name: str, size: int) -> None:
    case, plan = _cut_case(name, size)
    whole = copied(case.model).train()
    optimizer = momentum(whole)
    train_(whole, case.inputs, optimizer, steps=2)
    cut_(whole, plan, optimizer=optimizer)
    losses = train_(whole, case.inputs, optimizer, steps=2)
    names = {parameter: n for n, parameter in whole.named_parameters()}
    state = {
        (names[p], key): value for p, own in optimizer.state.items() for key, value in own.items()
    }

    def work(world: ThreadWorld) -> tuple[list[float], dict, dict, int]:
        local = case.local(world).train()
        own = momentum(local)
        train_(local, case.inputs, own, steps=2)
        after = cut_parallel_(local, plan, case.plan, graph=case.graph, world=world, optimizer=own)
        assert after.fingerprint == fingerprint(whole)
        assert fingerprint(skeleton(local, after, world.rank)) == fingerprint(whole)
        trained = train_(local, case.inputs, own, steps=2)
        joined = dict(whole_tensors(local, after, world))
        moments = {(n, key): value for n, key, value in whole_state(own, local, after, world)}
        return trained, joined, moments, sum(p.numel() for p in local.parameters())

    ranks, _ = on_ranks(size, work)
    assert plan.keep
    smaller = sum(p.numel() for p in whole.parameters())
    for trained, joined, moments, held in ranks:
        torch.testing.assert_close(trained, losses, rtol=1e-11, atol=1e-11)
        for tensor, value in joined.items():
            check_equal(value, whole.state_dict()[tensor], tensor)
        assert moments.keys() == state.keys()
        for key, value in moments.items():
            check_equal(value, state[key], str(key))
        assert held < smaller


def test_only_rows_that_change_their_rank_are_sent() -> None:
    """Of 8 units ranks 0 and 1 hold four each; 1 to 6 stay, three each, so nothing moves; 0, 4, 5
    and 6 stay, so unit 4 alone comes from rank 1."""
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).double()
    case = case_of((model, torch.randn(2, 3, dtype=torch.float64)), size=2)
    (id,) = case.plan.bounds
    moved = {}
    for keep in ((1, 2, 3, 4, 5, 6), (0, 4, 5, 6)):
        plan = _keeping(case, id, keep)

        def work(world: ThreadWorld, plan: sc.Plan = plan) -> int:
            local = case.local(world)
            cut_parallel_(local, plan, case.plan, graph=case.graph, world=world)
            return world.meeting.moved

        moved[keep] = max(on_ranks(2, work)[0])
    assert moved[(1, 2, 3, 4, 5, 6)] == 0
    assert moved[(0, 4, 5, 6)] == 3 + 1 + 2  # its row, its bias, its column


def _keeping(case: Case, id: str, units: tuple[int, ...]) -> sc.Plan:
    scores = {g.id: torch.zeros(g.size) for g in case.graph.groups if g.pinned is None}
    scores[id][list(units)] = 1.0
    share = len(units) / len(scores[id])
    plan = sc.plan(case.graph, scores, keep=share, groups=[id])
    assert plan.keep[id] == units
    return plan


def test_one_rank_gets_the_whole_and_the_others_nothing() -> None:
    case = case_of(_made("residual"), size=2)

    def work(world: ThreadWorld) -> dict[str, Tensor]:
        return dict(whole_tensors(case.local(world), case.plan, world, to=1))

    (first, second), _ = on_ranks(2, work)
    assert all(not tensor.numel() for tensor in first.values())
    for name, tensor in case.model.state_dict().items():
        assert torch.equal(second[name], tensor)


def test_a_rank_is_filled_a_tensor_at_a_time() -> None:
    case = case_of(_made("decoder"), size=2)
    state = case.model.state_dict()
    read: list[str] = []

    def find(name: str) -> Tensor:
        read.append(name)
        return state[name]

    def work(world: ThreadWorld) -> Tensor:
        empty = copied(case.model).to("meta")
        local = parallelize_(empty, case.plan, world).to_empty(device="cpu")
        fill_(local, case.plan, world.rank, find)
        return outputs_and_loss(local, case.inputs)[0][0]

    expected = outputs_and_loss(case.model, case.inputs)[0][0]
    for found in on_ranks(2, work)[0]:
        check_equal(found, expected, "decoder")
    assert sorted(set(read)) == sorted(state)


def test_refusals() -> None:
    case = case_of(_made("residual"), size=2)
    other = case_of(_made("residual"), size=3)

    def differ(world: ThreadWorld) -> nn.Module:
        plan = case.plan
        if world.rank:
            bounds = {id: (ends[0], 1, ends[-1]) for id, ends in plan.bounds.items()}
            plan = type(plan)(**{**vars(plan), "bounds": bounds})
        return parallelize_(copied(case.model), plan, world)

    with pytest.raises(EngineError, match="rank 1 has another tensor-parallel plan"):
        on_ranks(2, differ)
    with pytest.raises(EngineError, match=r"tensor_parallel_plan\(\.\.\., size=2\)"):
        on_ranks(2, other.local)
    _, plan = _cut_case("residual", 2)
    wrong = case_of(_made("plain_chain"), size=2)
    with pytest.raises(PlanMismatchError, match="different models"):
        on_ranks(
            2,
            lambda world: cut_parallel_(
                wrong.local(world), plan, wrong.plan, graph=wrong.graph, world=world
            ),
        )
    few = _keeping(case_of(_made("plain_chain"), size=3), "0.weight[0]", (0, 1))
    chain = case_of(_made("plain_chain"), size=3)
    with pytest.raises(EngineError, match="plan the cut with tensor_parallel=3"):
        on_ranks(
            3,
            lambda world: cut_parallel_(
                chain.local(world), few, chain.plan, graph=chain.graph, world=world
            ),
        )


def test_lbfgs_is_refused_before_anything_changes() -> None:
    case, plan = _cut_case("residual", 2)

    def work(world: ThreadWorld) -> tuple[int, int]:
        local = case.local(world)
        before = sum(p.numel() for p in local.parameters())
        with pytest.raises(CutError, match="LBFGS"):
            cut_parallel_(
                local, plan, case.plan, graph=case.graph, world=world,
                optimizer=torch.optim.LBFGS(local.parameters()),
            )  # fmt: skip
        return before, sum(p.numel() for p in local.parameters())

    assert all(before == after for before, after in on_ranks(2, work)[0])


def test_shared_out_and_cut_in_either_order() -> None:
    """Sharing out the cut model and cutting the shared-out model give ranks the same models."""
    case, plan = _cut_case("residual", 2)
    small = cut(case.model, plan)
    shared = case_of((small, case.inputs), size=2)
    if shared.plan.bounds.keys() != case.plan.bounds.keys():
        pytest.fail("the smaller model is shared out along other groups")

    def work(world: ThreadWorld) -> None:
        first = shared.local(world)
        second = case.local(world)
        cut_parallel_(second, plan, case.plan, graph=case.graph, world=world)
        for (name, mine), theirs in zip(first.named_parameters(), second.parameters(), strict=True):
            assert torch.equal(mine, theirs), name

    on_ranks(2, work)


def test_gradients_are_clipped_by_the_norm_of_the_whole() -> None:
    case = case_of(_made("decoder"), size=2)
    whole = copied(case.model)
    outputs_and_loss(whole, case.inputs)[1].backward()
    norm = float(nn.utils.clip_grad_norm_(whole.parameters(), 0.5))
    assert norm > 0.5
    gradients = {n: p.grad for n, p in whole.named_parameters()}

    def work(world: ThreadWorld) -> tuple[float, dict[str, Tensor]]:
        local = case.local(world)
        outputs_and_loss(local, case.inputs)[1].backward()
        found = clip_gradients_(local, case.plan, world, max_norm=0.5)
        return found, {n: p.grad for n, p in local.named_parameters()}

    for rank, (found, own) in enumerate(on_ranks(2, work)[0]):
        assert found == pytest.approx(norm, rel=1e-12)
        for name, gradient in own.items():
            check_equal(gradient, part_of(gradients[name], name, case.plan, rank), name)


class Keyword(nn.Module):
    """Calls its child by position, or by name once it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.by_name = nn.Linear(4, 8), nn.Linear(8, 2), False

    def forward(self, x: Tensor) -> Tensor:
        y = torch.tanh(self.down(torch.relu(self.up(input=x) if self.by_name else self.up(x))))
        return y + x[:, :2]


def test_a_forward_other_than_the_one_planned_for_is_said() -> None:
    case = case_of((Keyword().double(), torch.randn(3, 4, dtype=torch.float64)), size=2)

    def work(world: ThreadWorld) -> Tensor:
        local = case.local(world)
        local.by_name = True
        return local(case.inputs)

    with pytest.raises(EngineError, match="up was called without tensor 0"):
        on_ranks(2, work)


def test_a_second_cut_is_planned_from_the_skeleton() -> None:
    """No rank has the whole model; its shapes and attributes are enough to trace it."""
    case, plan = _cut_case("residual", 2)
    case.model.eval()
    small = cut(case.model, plan)
    graph = sc.trace(small, case.inputs)
    scores = sc.score(graph, small, criterion="l2")
    second = sc.plan(graph, scores, budget="params=80%", tensor_parallel=2)
    smaller = cut(small, second)
    expected = outputs_and_loss(smaller, case.inputs)[0][0]
    tracing = threading.Lock()  # a trace patches what modules are called by

    def work(world: ThreadWorld) -> tuple[Tensor, dict[str, Tensor]]:
        local = case.local(world)
        after = cut_parallel_(local, plan, case.plan, graph=case.graph, world=world)
        with tracing:
            again = sc.trace(skeleton(local, after, world.rank), case.inputs)
        assert again.hash == graph.hash
        last = cut_parallel_(local, second, after, graph=again, world=world)
        return outputs_and_loss(local, case.inputs)[0][0], dict(whole_tensors(local, last, world))

    assert second.keep
    for out, joined in on_ranks(2, work)[0]:
        check_equal(out, expected, "output")
        for name, tensor in smaller.state_dict().items():
            assert torch.equal(joined[name], tensor), name
