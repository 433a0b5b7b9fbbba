"""Saved folders: what is written is what is read, and everything wrong has its own clear error."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from secateur.core.errors import StorageError
from secateur.storage import load, save
from secateur.storage.layout import load_example


class Tied(nn.Module):
    """Two names for one weight, a transposed parameter, a bfloat16 one, both kinds of buffers."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.turned = nn.Parameter(torch.randn(3, 4).t())
        self.halved = nn.Parameter(torch.randn(5).to(torch.bfloat16))
        self.register_buffer("steps", torch.tensor(3))
        self.register_buffer("table", torch.arange(4), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.embed(tokens)) + (self.turned[1, 2] * self.halved[0].float())
        return out


def fresh() -> Tied:
    torch.manual_seed(99)
    return Tied()


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Tied, Path]:
    torch.manual_seed(0)
    model = Tied()
    save(model, tmp_path / "out", example=torch.tensor([[1, 2]]))
    return model, tmp_path / "out"


def test_what_was_saved_is_what_is_loaded(saved: tuple[Tied, Path]) -> None:
    model, folder = saved
    loaded = load(folder, fresh)
    tokens = torch.tensor([[1, 2, 6]])
    assert torch.equal(loaded(tokens), model(tokens))
    assert not torch.equal(fresh()(tokens), model(tokens))
    for name, tensor in model.state_dict().items():
        assert loaded.state_dict()[name].dtype == tensor.dtype
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_tied_weights_are_stored_once_and_stay_tied(saved: tuple[Tied, Path]) -> None:
    _, folder = saved
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["aliases"] == {"head.weight": "embed.weight"}
    loaded = load(folder, fresh)
    assert isinstance(loaded, Tied)
    assert loaded.head.weight is loaded.embed.weight
    assert loaded.halved.requires_grad


def test_weights_that_only_the_saved_model_tied_are_tied_again(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    save(model, tmp_path / "out")
    loaded = load(tmp_path / "out", lambda: nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)))
    assert isinstance(loaded, nn.Sequential)
    assert loaded[1].weight is loaded[0].weight


def test_saving_and_loading_leave_the_bytes_the_same(saved: tuple[Tied, Path]) -> None:
    _, folder = saved
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    save(load(folder, fresh), folder, example=torch.tensor([[1, 2]]))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    "example",
    [
        torch.arange(3.0),
        (torch.ones(2, 1), torch.tensor([4])),
        {"tokens": torch.tensor([[4]]), "use_cache": False, "scale": None},
        ([torch.ones(1), {"mask": torch.tensor([True])}], "mode", 2.5),
    ],
)
def test_example_inputs_come_back(tmp_path: Path, example: Any) -> None:
    save(nn.Linear(1, 1), tmp_path / "out", example=example)
    assert repr(load_example(tmp_path / "out")) == repr(example)


def test_example_inputs_that_cannot_be_saved_are_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"example input x\.0 is a object"):
        save(nn.Linear(1, 1), tmp_path / "out", example={"x": [object()]})
    assert not list(tmp_path.iterdir())


def test_model_fn_on_meta_is_filled(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    save(model, tmp_path / "out")

    def on_meta() -> nn.Module:
        with torch.device("meta"):
            return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))

    x = torch.randn(4, 3)
    assert torch.equal(load(tmp_path / "out", on_meta).eval()(x), model.eval()(x))


@pytest.mark.parametrize("name", ["model.safetensors", "example.safetensors"])
def test_truncated_file_is_named_with_both_sizes(saved: tuple[Tied, Path], name: str) -> None:
    path = saved[1] / name
    content = path.read_bytes()
    path.write_bytes(content[:-7])
    with pytest.raises(StorageError, match=f"{name} is truncated.*{len(content) - 7}.*expected"):
        load(saved[1], fresh)


def test_one_changed_byte_is_found(saved: tuple[Tied, Path]) -> None:
    path = saved[1] / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"model\.safetensors was changed after saving"):
        load(saved[1], fresh)


def test_missing_file_is_named(saved: tuple[Tied, Path]) -> None:
    (saved[1] / "model.safetensors").unlink()
    with pytest.raises(StorageError, match=r"model\.safetensors is missing"):
        load(saved[1], fresh)


def test_missing_folder_and_foreign_folder_say_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="there is no folder"):
        load(tmp_path / "nowhere", fresh)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(StorageError, match=r"config\.json; expected manifest\.json"):
        load(tmp_path, fresh)
    (tmp_path / "manifest.json").write_text('{"format": 1}')
    with pytest.raises(StorageError, match="another tool"):
        load(tmp_path, fresh)
    (tmp_path / "manifest.json").write_text('{"format": 1, "to')
    with pytest.raises(StorageError, match="truncated or changed"):
        load(tmp_path, fresh)


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_newer_format_asks_for_an_update(saved: tuple[Tied, Path]) -> None:
    edit_manifest(saved[1], format=2)
    with pytest.raises(StorageError, match=r"format 2.*pip install -U secateur"):
        load(saved[1], fresh)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", ".hidden", "a\\b"])
def test_manifest_that_points_outside_is_refused(saved: tuple[Tied, Path], name: str) -> None:
    entry = {"sha256": "0" * 64, "size_bytes": 1}
    edit_manifest(saved[1], files={name: entry})
    with pytest.raises(StorageError, match="no plain file name"):
        load(saved[1], fresh)


@pytest.mark.parametrize("key", ["files", "aliases", "fingerprint", "kind"])
def test_manifest_without_a_key_is_refused(saved: tuple[Tied, Path], key: str) -> None:
    path = saved[1] / "manifest.json"
    body = json.loads(path.read_text())
    del body[key]
    path.write_text(json.dumps(body))
    with pytest.raises(StorageError, match=f"lacks what format 1 needs.*{key}"):
        load(saved[1], fresh)


def test_alias_to_nowhere_is_refused(saved: tuple[Tied, Path]) -> None:
    edit_manifest(saved[1], aliases={"head.weight": "nothing"})
    with pytest.raises(StorageError, match=r"ties head\.weight to tensors"):
        load(saved[1], fresh)


def test_another_model_is_refused_and_differences_are_named(saved: tuple[Tied, Path]) -> None:
    with pytest.raises(
        StorageError, match=r"weight is missing from the file; bias is missing.*and 4 more"
    ):
        load(saved[1], lambda: nn.Linear(3, 3))


def test_same_tensors_in_other_classes_are_refused(tmp_path: Path) -> None:
    class Twin(nn.Linear):
        pass

    save(nn.Linear(3, 3), tmp_path / "out")
    with pytest.raises(StorageError, match="is not the one that was saved"):
        load(tmp_path / "out", lambda: Twin(3, 3))


def test_saving_never_replaces_a_folder_of_someone_else(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match="choose a new folder"):
        save(Tied(), tmp_path)
    with pytest.raises(StorageError, match="is a file"):
        save(Tied(), tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_full_disk_is_an_error_and_the_old_save_stays(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Linear(200, 200)
    save(model, tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # the kernel refuses to write files over 64 KiB from here on, as a full disk would
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))
    try:
        with pytest.raises(StorageError, match=r"could not write .*out.*nothing was changed"):
            save(nn.Linear(200, 200), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_weights_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="'weight' is on the meta device"):
        save(nn.Linear(2, 2, device="meta"), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_state_that_is_no_tensor_is_refused(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def get_extra_state(self) -> object:
            return {"anything": 1}

    with pytest.raises(StorageError, match="_extra_state"):
        save(Odd(), tmp_path / "out")
