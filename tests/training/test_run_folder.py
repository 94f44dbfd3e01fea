"""A run on disk: what a full disk, a crash and missing permissions leave."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from motion.training.gradient_checks import TrainingError
from motion.training.run_folder import KEPT_STATES, RunFolder

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="a process that gives its rights away needs fork")


def save(folder, step, value=1.0):
    return folder.save_state(step, {"x": torch.full((8,), value)}, {"step": step})


def check_full(lines, path):
    """One message for each file, all with what came and what to do; the last state is whole and nothing else there."""
    names = ("state-0000006.safetensors", "big.png", "notes.txt")
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"507 The file {name} must be written to {path}, got: ")
        assert "The state of step 3 is kept. Free some space there" in line
        assert "run the same command again to resume" in line
    step, tensors, facts = RunFolder(path).load_state()
    assert (step, facts) == (3, {"n": 3})
    assert torch.equal(tensors["x"], torch.arange(4.0))
    assert sorted(file.name for file in path.rglob("*") if file.is_file()) == ["state-0000003.safetensors"]


def in_a_child(work):
    """The messages of the TrainingErrors that `work` returns as text, from a process whose rights it may give away."""
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=lambda: theirs.send(work()))
    child.start()
    assert ours.poll(60), "the child has not answered"
    lines = ours.recv()
    child.join()
    return lines


def message(write):
    with pytest.raises(TrainingError) as error:
        write()
    return f"{error.value.status_code} {error.value}"


def fill(folder):
    """What is said when three files are too large."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), np.uint8))
    return [
        message(lambda: folder.save_state(6, {"x": torch.zeros(1_000_000)}, {})),
        message(lambda: folder.save_image("samples/big.png", noise)),
        message(lambda: folder.save_text("notes.txt", "x" * 1_000_000)),
    ]


@needs_fork
def test_file_that_finds_no_room_leaves_the_last_state(tmp_path):
    """Beyond a limit on the size of files, writing fails as on a full disk; Python ignores the signal that kills."""
    folder = RunFolder(tmp_path / "run")
    folder.save_state(3, {"x": torch.arange(4.0)}, {"n": 3})

    def work():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        return fill(folder)

    check_full(in_a_child(work), folder.path)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 200 kB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"may not mount a tmpfs here: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="tmpfs is Linux's")
def test_full_disk_leaves_the_last_state(small_disk):
    folder = RunFolder(small_disk / "run")
    folder.save_state(3, {"x": torch.arange(4.0)}, {"n": 3})
    lines = fill(folder)
    assert all("No space left on device" in line for line in lines)
    check_full(lines, folder.path)
    save(folder, 9)  # smaller, and there is room for it again
    assert folder.load_state()[0] == 9


def test_newest_states_are_kept(tmp_path):
    folder = RunFolder(tmp_path / "new" / "run")
    assert folder.load_state() is None
    for step in (5, 10, 15, 1_000_000):
        save(folder, step, float(step))
    assert [step for step, _ in folder.states()] == [1_000_000, 15]
    assert KEPT_STATES == 2
    step, tensors, facts = folder.load_state()
    assert (step, facts, tensors["x"][0].item()) == (1_000_000, {"step": 1_000_000}, 1_000_000.0)


@pytest.mark.parametrize("damage", ["empty", "header", "data", "noise", "foreign"])
def test_damaged_state_is_skipped_for_the_one_before(tmp_path, damage):
    folder = RunFolder(tmp_path)
    save(folder, 5)
    newest = save(folder, 10)
    content = newest.read_bytes()
    if damage == "foreign":
        save_file({"x": torch.zeros(3)}, newest)
    else:
        damaged = {"empty": b"", "header": content[:20], "data": content[:-4], "noise": b"\xff" * len(content)}
        newest.write_bytes(damaged[damage])
    step, tensors, facts = folder.load_state()
    assert (step, facts) == (5, {"step": 5})
    assert torch.equal(tensors["x"], torch.ones(8))


def test_unfinished_files_and_strangers_are_no_states(tmp_path):
    folder = RunFolder(tmp_path)
    save(folder, 5)
    for name in (".state-0000010.safetensors.unfinished", "state-10.safetensors", "state-0000010.safetensors.txt"):
        (tmp_path / name).write_bytes(b"?")
    assert [step for step, _ in folder.states()] == [5]


def test_file_that_fails_while_it_is_written_leaves_the_old_one(tmp_path):
    folder = RunFolder(tmp_path)
    folder.save_text("notes.txt", "old")

    def broken(path):
        path.write_text("new and only in p")
        raise OSError(5, "Input/output error")

    with pytest.raises(
        TrainingError, match=r"notes\.txt must be written to .*, got: Input/output error\. No state was"
    ):
        folder.write(tmp_path / "notes.txt", broken)
    assert (tmp_path / "notes.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        TrainingError, match=r"run's folder must be written to .*file/run, got: Not a directory\. No state"
    ):
        RunFolder(tmp_path / "file" / "run")


@needs_fork
def test_folder_without_permission_to_write(tmp_path):
    """root may write anywhere, so a process without its rights is asked."""
    folder = RunFolder(tmp_path)
    save(folder, 7)

    def work():
        if os.geteuid() == 0:
            os.seteuid(65534)
        return [message(lambda: folder.save_text("notes.txt", "text"))]

    for path in (tmp_path, *tmp_path.parents[:3]):
        if path.stat().st_uid == os.geteuid():
            path.chmod(0o555 if path == tmp_path else 0o755)
    try:
        (line,) = in_a_child(work)
    finally:
        tmp_path.chmod(0o755)
    assert "got: Permission denied. The state of step 7 is kept." in line
    assert "give yourself the permission to write" in line
