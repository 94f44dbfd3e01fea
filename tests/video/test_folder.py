from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from motion.errors import OutputError
from motion.video import check_output_folder, estimate_clip_bytes
from motion.video.folder import claim_name, output_error, publish


def test_missing_folder_is_made_and_left_empty(tmp_path):
    check_output_folder(tmp_path / "a" / "b", estimate_clip_bytes(16, 512, 512))
    assert os.listdir(tmp_path / "a" / "b") == []


def test_file_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match=r"must be a folder that can be written to, got: .*rename it") as caught:
            check_output_folder(folder)
        assert vars(caught.value)["status_code"] == 422


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that even root can't write to")
def test_unwritable_folder_is_refused():
    with pytest.raises(OutputError, match="must be a folder that can be written to"):
        check_output_folder("/proc/self")


def test_too_little_space_is_refused(tmp_path):
    with pytest.raises(OutputError, match=r"must have 1,000,000,000,000 MB free.*Free some space") as caught:
        check_output_folder(tmp_path, 10**18)
    assert caught.value.status_code == 507


def test_full_disk_is_a_fault_of_storage():
    error = output_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "The clip must be written")
    assert str(error).startswith("The clip must be written, got: No space left on device. Free some space")
    assert vars(error)["status_code"] == 507


def test_names_count_on_from_what_is_there(tmp_path):
    assert claim_name(tmp_path, "7") == "00000-7"
    (tmp_path / "00041-1.png").write_text("")  # a host's still
    (tmp_path / "20240101-notes.txt").write_text("")
    assert claim_name(tmp_path, "7") == "00042-7"
    (tmp_path / "99999-x.gif").write_text("")
    assert claim_name(tmp_path, "7") == "100000-7"


def test_plain_name_must_be_free(tmp_path):
    (tmp_path / "clip.gif").write_text("")
    with pytest.raises(OutputError, match="name must be free"):
        claim_name(tmp_path, "clip", numbered=False)
    assert not (tmp_path / "clip").exists()
    assert claim_name(tmp_path, "other", numbered=False) == "other"
    with pytest.raises(OutputError, match="name must be free"):
        claim_name(tmp_path, "other", numbered=False)


@pytest.mark.parametrize("stem", ["", "..", ".hidden", "a/b", "a\\b", "a\0b", "what?", "end.", "end ", "x" * 201])
def test_stem_must_be_a_file_name(tmp_path, stem):
    with pytest.raises(OutputError, match="plain file name"):
        claim_name(tmp_path, stem)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("hard_links", [True, False])
def test_publish_never_replaces(tmp_path, monkeypatch, hard_links):
    if not hard_links:

        def refuse(*_):
            raise PermissionError("no hard links on this disk")

        monkeypatch.setattr(os, "link", refuse)
    unfinished, final = tmp_path / "unfinished", tmp_path / "final"
    unfinished.write_text("new")
    publish(unfinished, final)
    assert (final.read_text(), unfinished.exists()) == ("new", False)
    unfinished.write_text("newer")
    with pytest.raises(FileExistsError):
        publish(unfinished, final)
    assert (final.read_text(), unfinished.read_text()) == ("new", "newer")
