"""Bytes that real steps send, read off the loopback device of a network namespace of their own.

    unshare -n python benchmarks/simulator_runs.py CASES.json

Run by benchmarks/simulator.py. Each case is a model, a mesh and a number of ranks; the ranks are
forked, train a few steps on random inputs under gloo, and rank 0 reads /proc/net/dev before and
after. What n steps send is the difference between 2n and n, so that set-up cancels out. A packet
carries 52 bytes of IP and TCP headers, which are taken off. One JSON line a case on stdout.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from secateur.engines.simulator.forecast import forecast
from secateur.engines.simulator.graph_workload import workload_of
from secateur.engines.simulator.machine import LOOPBACK
from secateur.engines.simulator.mesh import Mesh, parse_mesh
from secateur.engines.simulator.training import Training
from secateur.graph import trace

HEADER_BYTES = 20 + 20 + 12
"""IPv4, TCP, and TCP's time stamps, in every packet, acknowledgements too."""
STEPS = 2
LLAMA_LAYERS = 8
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
    graph = trace(model, dict(inputs))
    found = forecast(workload_of(graph), mesh, LOOPBACK, training=Training(optimizer="sgd"))
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
    units = [block.path for block in trace(model, dict(inputs)).blocks]
    context = multiprocessing.get_context("fork")
    with tempfile.TemporaryDirectory() as folder:
        store, answers = str(Path(folder) / "store"), context.SimpleQueue()
        ranks = [
            context.Process(target=_rank, args=(rank, mesh, store, model, inputs, units, answers))
            for rank in range(mesh.ranks)
        ]
        for process in ranks:
            process.start()
        found = sorted(answers.get() for _ in ranks)
        for process in ranks:
            process.join()
    (_, traffic, _) = found[0]
    return traffic | {"state": [state for _, _, state in found]}


def _rank(
    rank: int,
    mesh: Mesh,
    store: str,
    model: nn.Module,
    inputs: Mapping[str, Tensor],
    units: Sequence[str],
    answers: Any,
) -> None:
    warnings.simplefilter("ignore")
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=mesh.ranks)
    model.train()
    ready, finish = _shared(model, mesh, units)
    optimizer = torch.optim.SGD(ready.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        ready.zero_grad()
        _loss(_called(ready, inputs)).backward()
        finish()
        optimizer.step()

    for _ in range(2):  # DDP settles its buckets in the first step
        step()
    once, twice = _sent(step, STEPS), _sent(step, 2 * STEPS)
    wire, packets = ((b - a) / STEPS for a, b in zip(once, twice, strict=True))
    traffic = {"wire_bytes": wire, "packets": packets, "bytes": wire - HEADER_BYTES * packets}
    answers.put((rank, traffic, _state(ready, optimizer)))
    dist.barrier()
    dist.destroy_process_group()


def _shared(model: nn.Module, mesh: Mesh, units: Sequence[str]) -> tuple[nn.Module, Step]:
    """The model under DDP, or FSDP2 over shards and perhaps replicas of them."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    if mesh.fsdp == 1:
        return DistributedDataParallel(model), lambda: None
    names = ("dp", "fsdp") if mesh.dp > 1 else ("fsdp",)
    shape = tuple(getattr(mesh, name) for name in names)
    devices = init_device_mesh("cpu", shape, mesh_dim_names=names)
    for path in (*units, ""):
        fully_shard(model.get_submodule(path), mesh=devices)
    for module in model.modules():
        if hasattr(module, "set_force_sum_reduction_for_comms"):
            module.set_force_sum_reduction_for_comms(True)  # gloo has no mean
            module.set_gradient_divide_factor(float(mesh.batches))
    return model, lambda: None


def _called(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    return model(*inputs.values()) if "x" in inputs else model(**inputs)


def _loss(out: Any) -> Tensor:
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
    from torch.distributed.tensor import DTensor

    own = tensor.to_local() if isinstance(tensor, DTensor) else tensor
    return own.numel() * own.element_size()


if __name__ == "__main__":
    main()
