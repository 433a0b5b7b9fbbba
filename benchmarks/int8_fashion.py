"""A CNN pruned under a latency budget in int8, recovered, and served: Fashion-MNIST, batch 1.

    PYTHONPATH=src python benchmarks/int8_fashion.py

The dense model is that of `fashion.py`, seed 0. It is pruned until its int8 form in ONNX Runtime is
measured to be within a thirteenth of the dense model's time in eager, recovered by distillation
from the dense one, and quantized on training images. Every form of both is then measured in one
run, taking turns, and answers the 10,000 test images one by one. Pieces are kept in
runs/int8_fashion/ and not made again. Needs onnx, onnxruntime, onnxscript and openvino.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import torch
import torch.nn.functional as F
from environment import environment
from fashion import ROOT, Augmented, fashion_data, settings, test_batches, train_dense
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

import secateur as sc
from secateur.core.atomic import replacing, write_text
from secateur.cost.latency import Latency, measure_latency
from secateur.cost.runtimes.feeds import feeds_of
from secateur.cost.runtimes.onnx_export import exported, input_names
from secateur.cost.runtimes.onnx_int8 import quantized
from secateur.cost.runtimes.prepared import Prepared, prepare
from secateur.search.timing import Device
from secateur.train import AttentionTransfer, Logits, TensorBatches, accuracy, distilled, finetune
from secateur.zoo.data import Data

RUNS = ROOT / "runs" / "int8_fashion"
RESULTS = ROOT / "benchmarks" / "results" / "int8"
TIMES_FASTER = 13.0
"""Three more than what is to be shown, for the noise of the machine."""
EPOCHS = 10
CALIBRATION = 512
ROUNDS = 60
FORMS = (
    ("eager", "fp32"),
    ("eager", "bf16"),
    ("onnxruntime", "fp32"),
    ("onnxruntime", "int8"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
    ("openvino", "int8"),
)


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    torch.set_num_threads(1)
    RUNS.mkdir(parents=True, exist_ok=True)
    data = fashion_data()
    dense = train_dense(0, data=data)
    plan = planned(dense, data)
    small = recovered(dense, plan, data)
    rows = measured({"dense": dense, "pruned": small}, data)
    about = environment(ROOT)
    about |= {name: metadata.version(name) for name in ("onnxruntime", "openvino")}
    body = {"about": about, "plan": plan_figures(plan), "rows": rows}
    write_text(RESULTS.with_suffix(".json"), json.dumps(body, indent=1) + "\n")
    write_text(RESULTS.with_suffix(".md"), page(body))
    print(page(body))


def example(data: Data) -> Tensor:
    """One image: what is measured is batch 1."""
    return data.train.tensors[0][:1]


def made_ready(model: nn.Module, form: tuple[str, str], data: Data) -> Prepared:
    """A model in a runtime and precision; int8 is calibrated on the first training images."""
    runtime, precision = form
    images = data.train.tensors[0][:CALIBRATION]
    return prepare(
        model.eval(),
        example(data),
        runtime=runtime,
        precision=precision,
        threads=1,
        calibration=[images],
    )


def planned(dense: nn.Module, data: Data) -> sc.Plan:
    """The plan, made now or read: what the int8 form may take is a share of its dense form's."""
    place = RUNS / "plan.json"
    if place.is_file():
        return sc.Plan.load(place)
    forms = {form: made_ready(dense, form, data) for form in (FORMS[0], FORMS[3])}
    names = {"/".join(form): one for form, one in forms.items()}
    found = measure_latency(names, example(data), threads=1, rounds=ROUNDS)
    eager, int8 = (found["/".join(form)].median_ms for form in forms)
    share = eager / TIMES_FASTER / int8
    graph = sc.trace(dense, example(data))
    batches = TensorBatches(*(t[:2048] for t in data.train.tensors), batch_size=128)
    scores = sc.score(graph, dense, criterion="taylor", data=batches, loss_fn=F.cross_entropy)
    plan = sc.plan_within(
        dense,
        graph,
        scores,
        example(data),
        budget=f"latency={100 * share:.0f}%",
        device=Device(1, 1, "onnxruntime", "int8"),
    ).plan
    plan.save(place)
    return plan


def recovered(dense: nn.Module, plan: sc.Plan, data: Data) -> nn.Module:
    """The pruned model, trained now or read."""
    small = sc.cut(dense, plan)
    place = RUNS / "pruned.safetensors"
    if place.is_file():
        small.load_state_dict(load_file(place))
        return small.eval()
    terms = Logits(0.9, temperature=4.0), AttentionTransfer(weight=10.0)
    finetune(
        small,
        Augmented(data, seed=100),
        settings=settings(EPOCHS, lr=0.05, seed=0),
        objective=distilled(F.cross_entropy, dense, terms=terms, hard=0.1),
        checkpoint_dir=RUNS / "checkpoints",
    )
    with replacing(place) as beside:
        save_file({name: t.contiguous() for name, t in small.state_dict().items()}, beside)
    return small.eval()


def measured(models: Mapping[str, nn.Module], data: Data) -> list[dict[str, Any]]:
    """A row for each model and form: latency, taking turns, accuracy and size on disk."""
    keys = [(name, *form) for name in models for form in FORMS]
    ready = {"/".join(key): made_ready(models[key[0]], key[1:], data) for key in keys}
    latencies = measure_latency(ready, example(data), threads=1, rounds=ROUNDS)
    rows = []
    for key in keys:
        name, (model, runtime, precision) = "/".join(key), key
        row = {
            "model": model,
            "runtime": runtime,
            "precision": precision,
            "accuracy": accuracy_of(models[model], ready[name], data),
            "size_bytes": size_of(models[model], runtime, precision, data),
            "params": sum(p.numel() for p in models[model].parameters()),
        }
        rows.append(row | figures(latencies[name], latencies["dense/eager/fp32"]))
        print(json.dumps(rows[-1]), flush=True)
    return rows


def figures(latency: Latency, dense: Latency) -> dict[str, float]:
    """Milliseconds, and how many times faster than the dense model in eager, round by round."""
    ratios = [a / b for a, b in zip(dense.samples_ms, latency.samples_ms, strict=True)]
    return {
        "median_ms": latency.median_ms,
        "p10_ms": latency.p10_ms,
        "p90_ms": latency.p90_ms,
        "times_faster": float(torch.tensor(ratios).median()),
    }


@torch.inference_mode()
def accuracy_of(model: nn.Module, ready: Prepared, data: Data) -> float:
    """Of the 10,000 test images: in eager by batches, elsewhere one by one as it is served."""
    if ready.runtime == "eager" and ready.precision == "fp32":
        return accuracy(model, test_batches(data))
    assert ready.on is not None
    images, labels = data.test.tensors
    right = 0
    for number in range(len(labels)):
        logits = torch.as_tensor(ready.on(images[number : number + 1])[0]).float()
        right += int(logits.flatten().argmax()) == int(labels[number])
    return right / len(labels)


def size_of(model: nn.Module, runtime: str, precision: str, data: Data) -> int:
    """Bytes of the file that would be served: safetensors in eager, ONNX elsewhere."""
    if runtime == "eager":
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        state = {
            name: (t.to(dtype) if t.is_floating_point() else t).contiguous()
            for name, t in model.state_dict().items()
        }
        return len(save(state))
    text = exported(model.eval(), example(data))
    if precision == "int8":
        images = data.train.tensors[0][:CALIBRATION]
        text = quantized(text, feeds_of([images], input_names(text), like=example(data)))
    return len(text)


def plan_figures(plan: sc.Plan) -> dict[str, Any]:
    """What the plan leaves."""
    return {
        "budget": plan.settings["budget"],
        "macs": [plan.before.macs, plan.after.macs],
        "params": [plan.before.params, plan.after.params],
        "notes": list(plan.notes),
    }


def page(body: Mapping[str, Any]) -> str:
    """The whole page."""
    about, plan, rows = body["about"], body["plan"], body["rows"]
    by_key = {(row["model"], row["runtime"], row["precision"]): row for row in rows}
    lines = [
        "# Pruned and int8, end to end",
        "",
        "Generated by `python benchmarks/int8_fashion.py`; do not edit. The Fashion-MNIST CNN of "
        f"`fashion.py`, seed 0, pruned under `{plan['budget']}` in ONNX Runtime in int8 (Taylor, "
        f"even shares; {plan['macs'][1] / plan['macs'][0]:.0%} of the MACs and "
        f"{plan['params'][1] / plan['params'][0]:.0%} of the parameters are left), recovered for "
        f"{EPOCHS} epochs by distillation from the dense model, quantized statically on "
        f"{CALIBRATION} training images. Batch 1, one thread. All rows took turns in one run of "
        f"{ROUNDS} rounds; *times faster* is the median over the rounds of the dense eager time "
        "of a round over the row's own. Accuracy is that of the 10,000 test images, answered by "
        "the same session that was timed. Sizes are of the file that is served.",
        "",
        f"{about['cpu']}, {about['threads']} thread, Python {about['python']}, torch "
        f"{about['torch']}, ONNX Runtime {about['onnxruntime']}, OpenVINO {about['openvino']}, "
        f"commit {about['commit']}, {about['date']}.",
        "",
        *verdict(by_key),
        "",
        "| model | runtime | precision | ms | 10th to 90th percentile | times faster | accuracy "
        "| against dense, points | size, kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    dense = by_key["dense", "eager", "fp32"]["accuracy"]
    return "\n".join([*lines, *(line_of(row, dense) for row in rows)]) + "\n"


def verdict(rows: Mapping[tuple[str, str, str], Mapping[str, Any]]) -> list[str]:
    """The headline, and what each step contributes to it."""
    dense = rows["dense", "eager", "fp32"]
    said = []
    for runtime in ("onnxruntime", "openvino"):
        best = rows["pruned", runtime, "int8"]
        steps = [dense, rows["dense", runtime, "fp32"], rows["pruned", runtime, "fp32"], best]
        parts = [a["median_ms"] / b["median_ms"] for a, b in itertools.pairwise(steps)]
        alone = rows["dense", runtime, "int8"]["times_faster"]
        said += [
            f"**{runtime}: pruned and int8 is {best['times_faster']:.1f} times faster than dense "
            f"eager, {100 * (best['accuracy'] - dense['accuracy']):+.2f} points of accuracy.** Of "
            f"that the runtime alone is {parts[0]:.1f} times, pruning {parts[1]:.1f} times more, "
            f"int8 {parts[2]:.1f} times more; int8 without pruning is {alone:.1f} times faster "
            "than dense eager.",
            "",
        ]
    return said[:-1]


def line_of(row: Mapping[str, Any], dense: float) -> str:
    """One row."""
    return (
        f"| {row['model']} | {row['runtime']} | {row['precision']} | {row['median_ms']:.3f} | "
        f"{row['p10_ms']:.3f} to {row['p90_ms']:.3f} | {row['times_faster']:.1f} | "
        f"{100 * row['accuracy']:.2f} % | {100 * (row['accuracy'] - dense):+.2f} | "
        f"{row['size_bytes'] / 1e3:.0f} |"
    )


if __name__ == "__main__":
    main()
