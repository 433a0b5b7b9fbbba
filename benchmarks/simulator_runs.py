"""Bytes that real steps send, read off the loopback device of a network namespace of their own.

    unshare -n python benchmarks/simulator_runs.py CASES.json

Run by benchmarks/simulator.py. Each case is a model, a mesh and a number of ranks; the ranks are
forked, train a few steps on random inputs under gloo, and rank 0 reads /proc/net/dev before and
after. What n steps send is the difference between 2n and n, so that set-up cancels out. A packet
carries 52 bytes of IP and TCP headers, which are taken off. One JSON line a case on stdout.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from secateur.core.world import ALONE
from secateur.engines.mesh import Mesh, parse_mesh
from secateur.engines.parallel import ddp, fsdp, none
from secateur.engines.process_group import ProcessGroup
from secateur.engines.shares import Share
from secateur.engines.simulator.forecast import forecast
from secateur.engines.simulator.loaded import workload_of_model
from secateur.engines.simulator.machine import LOOPBACK
from secateur.engines.simulator.training import Training
from secateur.engines.tensor_parallel.choose import tensor_parallel_plan
from secateur.engines.tensor_parallel.local import parallelize_
from secateur.engines.tensor_parallel.value import TensorParallelPlan
from secateur.engines.training import Moment, Parallel
from secateur.graph import trace

HEADER_BYTES = 20 + 20 + 12
"""IPv4, TCP, and TCP's time stamps, in every packet, acknowledgements too."""
STEPS = 2
LONGEST_S = 900
"""For the steps of one case."""
LLAMA_LAYERS = 4
Step = Callable[[], None]


class Small(nn.Module):
    """Two residual blocks whose 250 rows no number of ranks but 2 divides, and batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 250), nn.BatchNorm1d(250), nn.ReLU(), nn.Linear(250, 64))
            for _ in range(2)
        )
        self.head = nn.Linear(64, 1001)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)  # type: ignore[no-any-return]


def main() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # a rank that waits for the processor must not look like a lost packet, which is sent again
    Path("/proc/sys/net/ipv4/tcp_early_retrans").write_text("0", encoding="ascii")
    torch.set_num_threads(1)
    for case in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        model, inputs = build(case["model"])
        mesh = parse_mesh(case["mesh"])
        found = measure(model, inputs, mesh) | predict(model, inputs, mesh)
        print(json.dumps(case | found), flush=True)


def build(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """A model with random weights and no dropout, and a batch for one rank."""
    if name == "small":
        return Small(), {"x": torch.randn(4, 64)}
    from torchvision_ops import define_torchvision_ops

    define_torchvision_ops()
    torch.manual_seed(0)
    if name == "resnet18":
        import torchvision

        return torchvision.models.resnet18(), {"x": torch.randn(4, 3, 64, 64)}
    import transformers as hf

    ids = {"input_ids": torch.randint(0, 1000, (2, 32))}
    if name == "minilm":
        config = hf.BertConfig(
            hidden_size=384,
            num_hidden_layers=6,
            num_attention_heads=12,
            intermediate_size=1536,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        return hf.BertModel(config), ids
    assert name == "smollm2"
    config = hf.LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=LLAMA_LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
        use_cache=False,
    )
    return hf.LlamaForCausalLM(config), ids


def predict(model: nn.Module, inputs: Mapping[str, Tensor], mesh: Mesh) -> dict[str, Any]:
    """The same from the simulator: bytes of all ranks by purpose, and the state of each."""
    work = workload_of_model(model, dict(inputs), tp=mesh.tp)
    training = Training(optimizer="sgd", sync_batch_norm=not is_hybrid(mesh))
    found = forecast(work, mesh, LOOPBACK, training=training)
    every = [run for run in found.ranks for _ in range(run.first, run.last + 1)]
    names = found.ranks[0].sent_bytes
    sent = {name: sum(rank.sent_bytes[name] for rank in every) for name in names}
    own = [rank.memory for rank in every]
    return {
        "predicted": sum(sent.values()),
        "purposes": {name: size for name, size in sent.items() if size},
        "kept": kept_bytes(model, inputs),
        "predicted_kept": own[0].activations,
        "predicted_state": [
            {"weights": held.weights, "gradients": held.gradients, "optimizer": held.optimizer}
            for held in own
        ],
    }


def kept_bytes(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Memory that autograd holds on to in one forward, without parameters and buffers."""
    given = {t.untyped_storage()._cdata for t in (*model.parameters(), *model.buffers())}
    held: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = _called(model, inputs)
    del out
    sizes = {key: tensor.untyped_storage().nbytes() for key, tensor in held.items()}
    return sum(size for key, size in sizes.items() if key not in given)


def measure(model: nn.Module, inputs: Mapping[str, Tensor], mesh: Mesh) -> dict[str, Any]:
    """Bytes and packets of a step of all ranks together, and each rank's state."""
    plan = None
    if mesh.tp > 1:
        graph = trace(model, dict(inputs))
        plan = tensor_parallel_plan(model, graph, dict(inputs), size=mesh.tp)
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        answers = context.Queue()
        ranks = [
            context.Process(target=_rank, args=(rank, mesh, folder, model, inputs, plan, answers))
            for rank in range(mesh.ranks)
        ]
        for process in ranks:
            process.start()
        found = sorted(answers.get(timeout=LONGEST_S) for _ in ranks)
        for process in ranks:
            process.join()
    (_, traffic, _) = found[0]
    return traffic | {"state": [state for _, _, state in found]}


def _rank(
    rank: int,
    mesh: Mesh,
    folder: str,
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    plan: TensorParallelPlan | None,
    answers: Any,
) -> None:
    warnings.simplefilter("ignore")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=mesh.ranks)
    model.train()
    if plan is not None:
        slices = groups(mesh, "tp")[rank]
        torch.manual_seed(0)
        parallelize_(model, plan, ProcessGroup(slices))
    parallel = _parallel(mesh, groups(mesh, "data")[rank])
    trained = _hybrid_(model, mesh) if is_hybrid(mesh) else parallel.lay_out(model)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)
    taken = itertools.count()

    def step() -> None:
        optimizer.zero_grad()
        share = Share(dict(inputs), 1 / mesh.batches, mesh.batches, split=True)
        moment = Moment(seed=0, step=next(taken), part=0, last=True)
        with parallel.computing(_loss, share, moment) as objective:
            loss = objective(trained, share.batch) * share.factor
            loss.backward()
        parallel.after_backward_(trained, _loss, ())
        optimizer.step()
        parallel.total(float(loss.detach()), step=moment.step)

    for _ in range(3):  # the first averages by itself, DDP settles its buckets in the second
        step()
    once, twice = _sent(step, STEPS), _sent(step, 2 * STEPS)
    wire, packets = ((b - a) / STEPS for a, b in zip(once, twice, strict=True))
    traffic = {"wire_bytes": wire, "packets": packets, "bytes": wire - HEADER_BYTES * packets}
    answers.put((rank, traffic, _state(trained, optimizer)))
    dist.barrier()
    dist.destroy_process_group()


def groups(mesh: Mesh, kind: str) -> dict[int, dist.ProcessGroup]:
    """The group of every rank along `tp`, or of those that have data of their own; all ranks make
    all groups, in the same order."""
    found: dict[int, dist.ProcessGroup] = {}
    places = {rank: mesh.place(rank) for rank in range(mesh.ranks)}
    keys = {rank: place[:2] if kind == "tp" else place[2:] for rank, place in places.items()}
    for key in sorted(set(keys.values())):
        members = [rank for rank, own in keys.items() if own == key]
        made = dist.new_group(members)
        found |= dict.fromkeys(members, made)
    return found


def is_hybrid(mesh: Mesh) -> bool:
    """Whether there are replicas of shards."""
    return mesh.dp > 1 and mesh.fsdp > 1


def _hybrid_(model: nn.Module, mesh: Mesh) -> nn.Module:
    """Hybrid sharding by torch's own means, which no kind of recovery here has."""
    names = ("dp", "fsdp")
    devices = init_device_mesh("cpu", (mesh.dp, mesh.fsdp), mesh_dim_names=names)
    for module in (*fsdp.blocks_of(model), model):
        fully_shard(module, mesh=devices)
    return model


def _parallel(mesh: Mesh, group: dist.ProcessGroup) -> Parallel:
    """How recovery here shares a training: DDP, FSDP2, or neither."""
    if mesh.batches == 1 or is_hybrid(mesh):
        return none.make(ALONE)
    kind = ddp if mesh.fsdp == 1 else fsdp
    return kind.make(ProcessGroup(group))


def _called(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(*inputs.values()) if "x" in inputs else model(**inputs)


def _loss(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    out = _called(model, batch)
    if isinstance(out, Tensor):
        return out.square().mean()
    return torch.stack([part.square().mean() for part in out.values()]).sum()


def _sent(step: Step, steps: int) -> tuple[int, int]:
    """Bytes and packets that the device sent while all ranks took so many steps."""
    before = _counted_together()
    for _ in range(steps):
        step()
    after = _counted_together()
    return after[0] - before[0], after[1] - before[1]


def _counted_together() -> tuple[int, int]:
    """Read while no rank sends: none goes on before rank 0 has read."""
    dist.barrier()
    counted = _counters()
    dist.barrier()
    return counted


def _counters() -> tuple[int, int]:
    for line in Path("/proc/net/dev").read_text(encoding="ascii").splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            fields = numbers.split()
            return int(fields[8]), int(fields[9])
    raise RuntimeError("there is no loopback device")


def _state(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of this rank's parameters, gradients and optimizer state."""
    parameters = list(model.parameters())
    momenta = [state["momentum_buffer"] for state in optimizer.state.values()]
    return {
        "weights": sum(map(_local, parameters)),
        "gradients": sum(_local(p.grad) for p in parameters if p.grad is not None),
        "optimizer": sum(map(_local, momenta)),
    }


def _local(tensor: Tensor) -> int:
    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own.numel() * own.element_size()


if __name__ == "__main__":
    main()
