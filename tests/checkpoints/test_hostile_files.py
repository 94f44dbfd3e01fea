"""Over 300 files made to break a reader: no crash, no code run, no hang, and a message for each."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from motion.checkpoints.inspection import inspect_file
from motion.checkpoints.motion_file import load_motion_model
from motion.errors import CheckpointError
from tests.checkpoints.hostile import FUZZERS, handmade, rezip, small_motion_module, zip_of

CPU = torch.device("cpu")
FILES_PER_FUZZER = 50
MAX_SECONDS = 5  # of processor time; the longest takes half of one
SITE = "up_blocks.1.motion_modules.0.temporal_transformer."

pytestmark = pytest.mark.filterwarnings("ignore")  # the readers warn of strange pickles, rightly


@pytest.fixture(scope="module")
def tensors():
    return small_motion_module()


@pytest.fixture(autouse=True)
def no_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    assert not Path("code-was-run").exists()


def refused(path: Path) -> bool:
    """Whether the file is refused, in good time and with reason and remedy."""
    start = time.process_time()
    report = inspect_file(path)
    error = None
    try:
        load_motion_model(path, device=CPU, dtype=None)
    except CheckpointError as caught:
        error = caught
    assert time.process_time() - start < MAX_SECONDS
    if error is None:
        return not report.usable
    assert error.reason
    assert error.remedy
    assert str(path) in str(error)
    return True


@pytest.mark.parametrize("fuzzer", FUZZERS, ids=lambda fuzzer: fuzzer.__name__)
def test_fuzzed_files(tmp_path, tensors, fuzzer):
    seeds = range(FILES_PER_FUZZER)
    path = tmp_path / "motion.safetensors" if "safetensors" in fuzzer.__name__ else tmp_path / "motion.ckpt"
    outcomes = []
    for seed in seeds:
        path.write_bytes(fuzzer(tensors, random.Random(seed)))
        outcomes.append(refused(path))
    # A few changes do no harm: a key of the metadata, a stretch of the pickle that says the same.
    assert sum(outcomes) > 0.8 * FILES_PER_FUZZER


@pytest.mark.parametrize("name", handmade())
def test_handmade_files(tmp_path, name):
    path = tmp_path / "motion.ckpt"
    path.write_bytes(handmade()[name])
    assert refused(path)


def test_safetensors_with_a_short_tensor_names_it(tmp_path, tensors):
    path = tmp_path / "a.safetensors"
    path.write_bytes(save(tensors)[:-1])
    with pytest.raises(CheckpointError, match=r"cut short \(`up_blocks.*` ends at byte \d+ of the data"):
        load_motion_model(path, device=CPU, dtype=None)
    data = save(tensors)
    length = int.from_bytes(data[:8], "little")
    key = SITE + "norm.weight"
    header = data[8 : 8 + length].replace(
        b'"%s":{"dtype":"F16","shape":[32]' % key.encode(), b'"%s":{"dtype":"F16","shape":[33]' % key.encode()
    )
    path.write_bytes(struct.pack("<Q", len(header)) + header + data[8 + length :])
    with pytest.raises(CheckpointError, match=rf"`{key}` of shape \[33\] in F16 needs 66 bytes, the file gives it 64"):
        load_motion_model(path, device=CPU, dtype=None)


def test_archive_with_a_short_record_names_the_tensor(tmp_path, tensors):
    # Mapped, the missing half would be filled with whatever comes next in the archive.
    number = list(tensors).index(SITE + "proj_in.weight")
    data = rezip(zip_of(tensors), lambda name, old: old[:1024] if name.endswith(f"data/{number}") else old)
    (tmp_path / "a.ckpt").write_bytes(data)
    with pytest.raises(CheckpointError, match=f"`{SITE}proj_in.weight` needs 2048 bytes, of which the file holds 1024"):
        load_motion_model(tmp_path / "a.ckpt", device=CPU, dtype=None)


def test_view_beyond_its_storage_names_the_tensor(tmp_path, tensors):
    # The shape (768,) becomes (769,) in the pickle; only this tensor has it.
    odd = {**tensors, "odd": torch.zeros(768)}
    for old in (False, True):
        torch.save(odd, tmp_path / "a.ckpt", _use_new_zipfile_serialization=not old)
        data = (tmp_path / "a.ckpt").read_bytes()
        if old:
            data = data.replace(b"M\x00\x03\x85", b"M\x01\x03\x85")
        else:
            data = rezip(data, lambda name, content: content.replace(b"M\x00\x03\x85", b"M\x01\x03\x85"))
        (tmp_path / "a.ckpt").write_bytes(data)
        with pytest.raises(CheckpointError, match=r"`odd` of shape \[769\] claims more numbers than the file holds"):
            load_motion_model(tmp_path / "a.ckpt", device=CPU, dtype=None)
