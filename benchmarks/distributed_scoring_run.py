"""One rank of `distributed_scoring.py`: scores a model by several criteria and fits it again.

distributed_scoring_run.py RANK SIZE STORE OUT MODEL
"""

from __future__ import annotations

import copy
import hashlib
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from fashion import fashion_data, fashion_net, test_batches
from torch import Tensor, nn

import secateur as sc
from secateur.core.timing import Timed
from secateur.engines.process_group import ProcessGroup

CRITERIA = ("taylor", "snip", "apoz", "wanda", "reconstruction", "output_error")
BATCHES = 12


def main() -> None:
    rank, size, name = int(sys.argv[1]), int(sys.argv[2]), sys.argv[5]
    torch.set_num_threads(1)
    store = dist.FileStore(sys.argv[3], size)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size)
    model, data, loss_fn = BUILD[name]()
    graph = sc.trace(model, inputs_of(data[0]))
    work: dict[str, Callable[[Any], str]] = {
        criterion: scored(graph, model, criterion, data, loss_fn) for criterion in CRITERIA
    }
    sc.score(graph, model, criterion="wanda", data=data[:1])  # loads what torch loads late
    plan = sc.plan(graph, sc.score(graph, model), keep=0.5)
    work["reconstruct_"] = lambda world: digest(
        sc.reconstruct_(
            sc.cut(model, plan), copy.deepcopy(model), plan=plan, data=data, world=world
        ).state_dict()
    )
    found = {}
    for what, run in work.items():
        world = ProcessGroup()
        world.wait(what="the start")
        timed, busy = Timed(world), time.process_time()
        result = run(timed)
        timing = timed.timing()
        found[what] = {
            "result": result,
            "seconds": timing.seconds,
            "cpu_s": time.process_time() - busy,
            "waited_s": sum(timing.waited_s.values()),
            "sent_s": sum(timing.sent_s.values()),
            "sent_bytes": timing.sent_bytes,
        }
    sizes = [sum(t.numel() for t in tensors_of(batch)) for batch in data]
    body = {"rank": rank, "work": found, "sizes": sizes}
    Path(sys.argv[4]).write_text(json.dumps(body), encoding="utf-8")
    dist.destroy_process_group()


def scored(
    graph: sc.Graph, model: nn.Module, criterion: str, data: list[Any], loss_fn: Any
) -> Callable[[Any], str]:
    """Scores, and the hash of the plan that keeps half of every group by them."""

    def run(world: Any) -> str:
        scores = sc.score(
            graph, model, criterion=criterion, data=data, loss_fn=loss_fn, world=world
        )
        return sc.plan(graph, scores, keep=0.5).hash[:16] + digest(scores)[:16]

    return run


def digest(found: Mapping[str, Tensor]) -> str:
    """A hash of all bits."""
    whole = hashlib.sha256()
    for name, tensor in found.items():
        whole.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return whole.hexdigest()


def inputs_of(batch: Any) -> Any:
    """What the model is traced with."""
    return batch if isinstance(batch, dict) else batch[0]


def tensors_of(batch: Any) -> list[Tensor]:
    """Of a batch."""
    return list(batch.values()) if isinstance(batch, dict) else list(batch)


def cnn() -> tuple[nn.Module, list[Any], Any]:
    """The ResNet-like net on Fashion-MNIST, batches of one size."""
    model = fashion_net(blocks=2).eval()
    batches = iter(test_batches(fashion_data(), split="train", batch_size=32))
    return model, [next(batches) for _ in range(BATCHES)], nn.functional.cross_entropy


def minilm() -> tuple[nn.Module, list[Any], Any]:
    """The shape of MiniLM with random weights, texts of 16 to 64 tokens, 4 in a batch."""
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    shape = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12}
    model = BertModel(BertConfig(intermediate_size=1536, **shape)).eval()
    generator = torch.Generator().manual_seed(1)
    data = []
    for length in torch.randint(16, 65, (BATCHES,), generator=generator).tolist():
        ids = torch.randint(30522, (4, length), generator=generator)
        data.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return model, data, lambda out, batch: out.pooler_output.square().mean()


BUILD = {"cnn": cnn, "minilm": minilm}

if __name__ == "__main__":
    main()
