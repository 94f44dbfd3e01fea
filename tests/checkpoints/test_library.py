"""Folders are listed by content, quickly the second time, and a bad cache only costs time."""

from __future__ import annotations

import json
import os

import pytest
import torch

from motion.checkpoints.file_formats import FILE_FORMATS
from motion.checkpoints.library import ModelLibrary
from tests.checkpoints.files import diffusers_names, narrow_tensors, write_tensors

LORA = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(4, 8)}


@pytest.fixture
def folders(tmp_path):
    for name in ("own/v3", "other", "empty"):
        (tmp_path / name).mkdir(parents=True)
    write_tensors(tmp_path / "own/v3/B mm.safetensors", narrow_tensors("v3_sd15_mm", torch.float16))
    write_tensors(tmp_path / "own/a.ckpt", LORA)
    tensors = narrow_tensors("mm_sd_v15_v2", torch.float16)
    names = diffusers_names(tensors)
    write_tensors(tmp_path / "other/ré lcm.safetensors", {names[key]: value for key, value in tensors.items()})
    (tmp_path / "other/broken.PT").write_bytes(b"")
    (tmp_path / "other/notes.txt").write_text("not listed")
    return [tmp_path / "own", tmp_path / "missing", tmp_path / "empty", tmp_path / "other"]


def test_lists_by_content(tmp_path, folders):
    library = ModelLibrary(folders, tmp_path / "cache" / "models.json")
    entries = library.entries()
    found = [(entry.name, entry.inspection.kind, entry.inspection.family) for entry in entries]
    assert found == [
        ("a.ckpt", "lora", None),
        ("broken.PT", "unknown", None),
        ("ré lcm.safetensors", "motion_module", "animate_lcm"),
        ("v3/B mm.safetensors", "motion_module", "sd15_v3"),
    ]
    assert all(entry.path.is_file() and entry.inspection.path == str(entry.path) for entry in entries)
    assert [entry.name for entry in library.entries(kinds=("lora", "unknown"))] == ["a.ckpt", "broken.PT"]
    assert ModelLibrary(folders, tmp_path / "cache" / "models.json").entries() == entries


def test_only_what_changed_is_read_again(tmp_path, folders):
    cache = tmp_path / "models.json"
    before = ModelLibrary(folders, cache).entries()
    times = {entry.path: (entry.path.stat().st_atime_ns, entry.path.stat().st_mtime_ns) for entry in before}
    # Same size and time: taken for unchanged. Another time: read again.
    for name in ("own/a.ckpt", "own/v3/B mm.safetensors"):
        path = tmp_path / name
        path.write_bytes(bytes(path.stat().st_size))
        os.utime(path, ns=times[path])
    os.utime(tmp_path / "own/a.ckpt", ns=(1, 1))
    (tmp_path / "other/broken.PT").unlink()
    write_tensors(tmp_path / "other/new.pt", LORA)
    after = {entry.name: entry.inspection for entry in ModelLibrary(folders, cache).entries()}
    assert after["a.ckpt"].kind == "unknown"
    assert after["v3/B mm.safetensors"].family == "sd15_v3"
    assert after["new.pt"].kind == "lora"
    assert "broken.PT" not in after
    assert len(json.loads(cache.read_text())["reports"]) == len(after) == 4


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"edition": null, "reports": {}}', b"\xff\xfe", b"[" * 100_000, b'{"reports": 3}']
)
def test_damaged_cache_is_made_anew(tmp_path, folders, content):
    cache = tmp_path / "models.json"
    expected = ModelLibrary(folders, cache).entries()
    cache.write_bytes(content)
    assert ModelLibrary(folders, cache).entries() == expected
    assert json.loads(cache.read_text())["reports"]


def test_damaged_reports_and_other_formats_are_not_taken_over(tmp_path, folders):
    cache = tmp_path / "models.json"
    expected = ModelLibrary(folders, cache).entries()
    stored = json.loads(cache.read_text())
    for report in stored["reports"].values():
        report[2] = {"kind": "svd"}
    cache.write_text(json.dumps(stored))
    assert ModelLibrary(folders, cache).entries() == expected
    fewer = [file_format for file_format in FILE_FORMATS if file_format.id != "lora"]
    assert ModelLibrary(folders, cache, fewer).entries(kinds=("lora",)) == []


def test_no_cache_file_and_one_that_cannot_be_written(tmp_path, folders, caplog):
    library = ModelLibrary(folders)
    assert library.entries() == library.entries()
    (tmp_path / "file").write_text("in the way")
    assert ModelLibrary(folders, tmp_path / "file" / "models.json").entries() == library.entries()
    assert "can't be kept" in caplog.text


def test_links_in_circles_and_pipes(tmp_path, folders):
    try:
        (tmp_path / "own/circle").symlink_to(tmp_path / "own", target_is_directory=True)
        (tmp_path / "own/gone.ckpt").symlink_to(tmp_path / "nowhere")
    except OSError:
        pytest.skip("this system forbids links")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "own/pipe.ckpt")
    assert [entry.name for entry in ModelLibrary(folders[:1]).entries()] == ["a.ckpt", "v3/B mm.safetensors"]
    assert len(ModelLibrary([folders[0], folders[0]]).entries()) == 2


def test_the_second_listing_opens_no_file(tmp_path):
    """Files whose bytes change behind an equal size and time are still listed as what they were."""
    (tmp_path / "models").mkdir()
    for number in range(20):
        write_tensors(tmp_path / f"models/{number}.safetensors", LORA)
    cache = tmp_path / "models.json"
    first = ModelLibrary([tmp_path / "models"], cache).entries()
    for entry in first:
        status = entry.path.stat()
        entry.path.write_bytes(bytes(status.st_size))
        os.utime(entry.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert ModelLibrary([tmp_path / "models"], cache).entries() == first
