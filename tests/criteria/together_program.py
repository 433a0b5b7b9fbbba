"""One rank of a program that scores, fits and ranks weights together, and once more alone.

    together_program.py RANK SIZE STORE

Rank 0 prints, as JSON, digests of what each rank found and of what it finds alone.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from small_models import made

from secateur import cut, plan, score, trace
from secateur.core.lookup import find, names
from secateur.core.world import ALONE, World
from secateur.criteria.blocks import score_blocks
from secateur.engines.leaving import leave
from secateur.engines.process_group import ProcessGroup
from secateur.masks.scores import Asked, elements
from secateur.masks.targets import targets
from secateur.oneshot import reconstruct_

LOSS = nn.functional.cross_entropy


def digest(found: Mapping[str, Tensor]) -> str:
    whole = hashlib.sha256()
    for name, tensor in found.items():
        whole.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()


def data() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 3, 4, 4, generator=generator),
            torch.randint(5, (size,), generator=generator),
        )
        for size in (2, 5, 3, 2, 4, 2, 6)
    ]


def everything(world: World) -> dict[str, str]:
    """Digests by what was done."""
    found = {}
    for name in ("conv", "attention"):
        model = made(name).float()
        graph = trace(model, data()[0][0])
        for criterion in names("secateur.criteria"):
            needs = find("secateur.criteria", criterion, kind="criterion").NEEDS
            if needs <= {"weights"} or "stream" in needs:
                continue
            how = {"data": data(), "loss_fn": LOSS, "world": world}
            scores = score(graph, model, criterion=criterion, **how)
            found[f"{criterion} of {name}"] = digest(scores)
            if criterion == "taylor":
                chosen = plan(graph, scores, keep=0.5)
                found[f"plan of {name}"] = chosen.to_json()
        small = reconstruct_(
            cut(model, chosen), copy.deepcopy(model), plan=chosen, data=data(), world=world
        )
        found[f"weights of {name}"] = digest(small.state_dict())
        wanted = targets(model)[:2]
        for criterion in ("taylor_weight", "snip", "wanda"):
            asked = Asked(criterion, data(), LOSS, 0, world)
            tensors = elements(model, wanted, asked)
            found[f"{criterion} of weights of {name}"] = digest(dict(enumerated(tensors)))
        found[f"blocks of {name}"] = digest(score_blocks(graph, model, data=data(), world=world))
    return found


def enumerated(tensors: list[Tensor]) -> list[tuple[str, Tensor]]:
    return [(str(k), tensor) for k, tensor in enumerate(tensors)]


def failure(world: World) -> str:
    """What a rank raises when the data of the last one hold a NaN."""
    given = data()
    given[3][0][0] = float("nan")
    model = made("conv").float()
    try:
        score(
            trace(model, given[0][0]),
            model,
            criterion="taylor",
            data=given,
            loss_fn=LOSS,
            world=world,
        )
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main() -> None:
    rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        store=dist.FileStore(store, size),
        rank=rank,
        world_size=size,
        timeout=datetime.timedelta(seconds=60),
    )
    world = ProcessGroup()
    together = world.gather([everything(world), failure(world)], what="what was found")
    if rank == 0:
        print(json.dumps({"alone": everything(ALONE), "together": together}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    leave(0)
