"""Recovery on a GPU: both mixed precisions learn, and a killed run resumes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from secateur.train import Callbacks, FinetuneSettings, TensorBatches, accuracy, finetune
from secateur.train.staging import Staging

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LOSS = nn.CrossEntropyLoss()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_in_every_precision(make_model: Any, digits: Any, precision: str) -> None:
    model = make_model()
    data = TensorBatches(digits.train_x, digits.train_y, batch_size=64)
    settings = FinetuneSettings(epochs=6, lr=0.1, clip_norm=5.0, precision=precision, device="cuda")
    log = finetune(model, data, settings=settings, loss_fn=LOSS)
    assert next(model.parameters()).is_cuda
    assert next(model.parameters()).dtype == torch.float32
    assert log.rows[-1].loss < log.rows[0].loss
    assert accuracy(model, [(digits.test_x, digits.test_y)]) > 0.95


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_a_killed_run_resumes(make_model: Any, digits: Any, tmp_path: Path, precision: str) -> None:
    data = TensorBatches(digits.train_x[:128], digits.train_y[:128], batch_size=16)
    settings = FinetuneSettings(
        epochs=3, optimizer="adamw", precision=precision, device="cuda", checkpoint_every=3
    )

    def end(step: int, loss: float) -> None:
        if step == 14:
            raise KeyboardInterrupt

    undisturbed, again = make_model(), make_model()
    torch.use_deterministic_algorithms(False)  # cuBLAS asks for an environment variable
    finetune(undisturbed, data, settings=settings, loss_fn=LOSS)
    arguments: Any = {"settings": settings, "loss_fn": LOSS, "checkpoint_dir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        finetune(make_model(), data, callbacks=Callbacks(on_step=end), **arguments)
    log = finetune(again, data, **arguments)
    assert log.resumed_at == 12
    for mine, theirs in zip(again.parameters(), undisturbed.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def test_a_checkpoint_is_held_in_pinned_buffers() -> None:
    staging, weight = Staging(), torch.randn(1000, 1000, device="cuda")
    first = staging.hold({"w": weight, "step": torch.tensor(3.0)})
    expected = weight.cpu()
    weight.zero_()
    assert first["w"].is_pinned() and not first["step"].is_pinned()
    assert torch.equal(first["w"], expected)
    again = staging.hold({"w": weight, "step": torch.tensor(4.0)})
    assert again["w"].data_ptr() == first["w"].data_ptr() and not again["w"].any()
