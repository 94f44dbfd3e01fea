"""Weight files of every kind open the same way; everything else is refused with reason and remedy."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from motion.checkpoints.file_kind import FileKind
from motion.checkpoints.loading import load_into
from motion.checkpoints.weight_file import open_weights, read_shapes
from motion.errors import CheckpointError

TENSORS = {
    "layer.weight": torch.arange(6.0).reshape(2, 3),
    "layer.bias": torch.tensor([1.0, -1.0], dtype=torch.float16),
    "steps": torch.tensor([3]),
}
SHAPES = {key: tuple(value.shape) for key, value in TENSORS.items()}


def write_safetensors(path: Path, tensors=TENSORS) -> None:
    save_file(tensors, path)


def write_zip(path: Path, tensors=TENSORS) -> None:
    torch.save(tensors, path)


def write_old(path: Path, tensors=TENSORS) -> None:
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


WRITERS = {
    FileKind.SAFETENSORS: write_safetensors,
    FileKind.TORCH_ZIP: write_zip,
    FileKind.TORCH_PICKLE: write_old,
}
CASES = [
    pytest.param(kind, suffix, id=f"{kind.name} as {suffix}")
    for kind in FileKind
    for suffix in (".safetensors", ".ckpt", ".bin")
]


@pytest.mark.parametrize(("kind", "suffix"), CASES)
def test_content_decides_and_tensors_come_back(tmp_path, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    WRITERS[kind](path)
    with open_weights(path) as file:
        assert file.kind is kind
        assert dict(file.shapes) == SHAPES
        assert len(file) == 3
        for key, tensor in TENSORS.items():
            assert file[key].dtype == tensor.dtype
            assert torch.equal(file[key], tensor)
        part = file.part("layer.")
        assert sorted(part) == ["bias", "weight"]
        assert torch.equal(part["weight"], TENSORS["layer.weight"])
    assert read_shapes(path) == SHAPES


@pytest.mark.parametrize("write", WRITERS.values(), ids=lambda write: write.__name__)
def test_training_prefix_is_taken_off(tmp_path, write):
    write(tmp_path / "a.ckpt", {f"module.{key}": value for key, value in TENSORS.items()})
    assert read_shapes(tmp_path / "a.ckpt") == SHAPES


@pytest.mark.parametrize("old", [False, True])
def test_wrapper_and_other_entries_are_taken_off(tmp_path, old):
    content = {"epoch": 3, "state_dict": {**TENSORS, "note": "text"}, "config": {"a": [1, 2.5, None]}}
    torch.save(content, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not old)
    assert read_shapes(tmp_path / "a.ckpt") == SHAPES


def test_lightning_callback_as_a_key_is_read(tmp_path):
    # Stable Diffusion 1.4's checkpoint holds {"callbacks": {<class ModelCheckpoint>: {...}}}.
    module = "pytorch_lightning.callbacks.model_checkpoint"
    buffer = io.BytesIO()
    torch.save({"state_dict": TENSORS, "callbacks": {Marker: {"score": 1.0}}}, buffer)
    source = f"c{Marker.__module__}\n{Marker.__name__}\n".encode()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(tmp_path / "a.ckpt", "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name).replace(source, f"c{module}\nModelCheckpoint\n".encode()))
    assert read_shapes(tmp_path / "a.ckpt") == SHAPES


class Marker:
    """Stands for a class of the training code."""


class Command:
    def __reduce__(self):
        return os.mkdir, ("was-run",)


def cut(path: Path, fraction: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])


@pytest.mark.parametrize("kind", FileKind, ids=lambda kind: kind.name)
@pytest.mark.parametrize("fraction", [0.02, 0.3, 0.9, 0.999])
def test_truncated_file(tmp_path, kind, fraction):
    path = tmp_path / ("a.safetensors" if kind is FileKind.SAFETENSORS else "a.ckpt")
    WRITERS[kind](path, {f"key{index}": torch.randn(100, 10) for index in range(10)})
    cut(path, fraction)
    with pytest.raises(CheckpointError, match=r"cut short.* Download it again"), open_weights(path):
        pass


@pytest.mark.parametrize("wrap", [False, True])
@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_pickle_with_code_is_not_run(tmp_path, monkeypatch, wrap, form):
    monkeypatch.chdir(tmp_path)
    content = {"state_dict": TENSORS, "x": Command()} if wrap else Command()
    if form == "plain":
        Path("a.ckpt").write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, "a.ckpt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(CheckpointError, match=r"a\.ckpt: .*contains code .*not run.* Use a \.safetensors"):
        read_shapes("a.ckpt")
    assert not Path("was-run").exists()


CONTENTS = {
    "empty": (b"", "is empty.* Download it again"),
    "page": (b"\n <!DOCTYPE html><html>", "web page"),
    "tag": (b"<html><body>Access denied", "web page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4265146304\n", "Git LFS pointer"),
    "text": (b"hello there, this is text", "no weight file"),
    "short": (b"\x10\x00", "cut short|no weight file"),
    "header too long": ((10**6).to_bytes(8, "little") + b"{}", "cut short"),
    "not a zip": (b"PK\x03\x04" + bytes(300), "cut short"),
    "pickle of today": (pickle.dumps(TENSORS["steps"].numpy(), protocol=4), "may contain code"),
    "pickled junk": (b"\x80\x02junk" + bytes(300), "damaged|code"),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("name", CONTENTS)
def test_what_is_no_weight_file(tmp_path, name, suffix):
    path = tmp_path / f"a{suffix}"
    content, message = CONTENTS[name]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        read_shapes(path)
    assert str(path) in str(caught.value)
    assert caught.value.reason
    assert caught.value.remedy


def test_missing_file_folder_and_no_tensors(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_shapes(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="folder"):
        read_shapes(tmp_path)
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(torch.zeros(2), tmp_path / "tensor.pt")
    torch.save({"unet": TENSORS}, tmp_path / "nested.pt")
    save_file({}, tmp_path / "none.safetensors")
    for name in ("list.pt", "tensor.pt", "nested.pt", "none.safetensors"):
        with pytest.raises(CheckpointError, match="holds no tensors"):
            read_shapes(tmp_path / name)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_unreadable_file(tmp_path):
    write_zip(tmp_path / "a.pt")
    (tmp_path / "a.pt").chmod(0)
    with pytest.raises(CheckpointError, match=r"can't be read .*permissions"):
        read_shapes(tmp_path / "a.pt")


def meta_linear(inputs: int = 3, outputs: int = 2) -> nn.Module:
    with torch.device("meta"):
        return nn.ModuleDict({"layer": nn.Linear(inputs, outputs)})


LINEAR = {key: TENSORS[key] for key in ("layer.weight", "layer.bias")}


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("write", WRITERS.values(), ids=lambda write: write.__name__)
def test_load_into_copies_and_freezes(tmp_path, write, dtype):
    path = tmp_path / "a.ckpt"
    write(path, LINEAR)
    module = meta_linear()
    with open_weights(path) as file:
        load_into(module, file, device=torch.device("cpu"), dtype=dtype, path=path)
    path.unlink()
    assert not module.training
    for key, parameter in module.named_parameters():
        assert not parameter.requires_grad
        assert parameter.dtype == (dtype or LINEAR[key].dtype)
        assert torch.equal(parameter, LINEAR[key].to(parameter.dtype))


def test_load_into_names_what_does_not_fit():
    cpu = torch.device("cpu")
    extra = {**LINEAR, **{f"more.{index}": torch.zeros(1) for index in range(5)}}
    with pytest.raises(CheckpointError, match=r"unexpected 5 tensors: `more.0`, `more.1`, `more.2` and 2 more"):
        load_into(meta_linear(), extra, device=cpu, dtype=None, path="a.pt")
    with pytest.raises(CheckpointError, match=r"a.pt: The file lacks 1 tensors: `layer.bias`\."):
        load_into(meta_linear(), {"layer.weight": LINEAR["layer.weight"]}, device=cpu, dtype=None, path="a.pt")
    with pytest.raises(CheckpointError, match=r"`layer.weight` must have shape \[2, 4\], got \[2, 3\]"):
        load_into(meta_linear(inputs=4), LINEAR, device=cpu, dtype=None, path="a.pt")
