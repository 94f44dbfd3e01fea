from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from motion.errors import OutputError
from motion.settings import FORMATS
from motion.video import CLIP_FORMATS, ClipFormat, ClipWriter, IncompleteClipError, read_infotext, save_clip
from motion.video import writer as writer_module
from motion.video.formats import FRAMES_FORMAT, check_format_names
from tests.video.clips import noise_frames, smooth_frames

EIGHT = Fraction(8)


def listing(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def python(script, *arguments, **options):
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options)


def test_every_format_of_the_settings_is_there():
    assert {*CLIP_FORMATS, FRAMES_FORMAT} == set(FORMATS)


def test_frames_go_when_they_are_not_asked_for(tmp_path):
    clip = save_clip(smooth_frames(3), tmp_path / "new", stem="7", fps=EIGHT, formats=["MP4", "GIF"])
    assert listing(tmp_path / "new") == ["00000-7.gif", "00000-7.mp4"]
    assert clip.files == {name: tmp_path / "new" / f"00000-7.{name.lower()}" for name in ("MP4", "GIF")}
    assert (clip.frame_folder, clip.frames, clip.notes) == (None, [], ())


def test_png_frames_are_exact_and_numbered(tmp_path):
    frames = [*smooth_frames(2, 5, 3), Image.new("RGBA", (5, 3), (1, 2, 3, 4))]
    texts = ["first", "second", "third"]
    clip = save_clip(frames, tmp_path, stem="7", fps=EIGHT, formats=["PNG", "GIF", "PNG"], infotext=texts)
    assert [path.name for path in clip.frames] == ["frame_0000.png", "frame_0001.png", "frame_0002.png"]
    assert clip.files["PNG"] == clip.frame_folder == tmp_path / "00000-7"
    for source, path, text in zip(frames, clip.frames, texts, strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), np.asarray(source))
        assert read_infotext(path) == text
    assert read_infotext(clip.files["GIF"]) == "first"


def test_each_frame_is_on_disk_when_add_frame_returns(tmp_path):
    writer = ClipWriter(tmp_path, "7", fps=EIGHT, formats=["MP4"])
    assert (writer.frame_folder, listing(tmp_path)) == (None, [])
    for index, frame in enumerate(smooth_frames(3)):
        path = writer.add_frame(frame, "text")
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), frame)
        assert listing(tmp_path / "00000-7") == [f"frame_{number:04d}.png" for number in range(index + 1)]
    writer.finish()
    assert listing(tmp_path) == ["00000-7.mp4"]


def test_exception_keeps_the_frames_and_says_where(tmp_path, caplog):
    with (
        pytest.raises(RuntimeError, match="boom"),
        ClipWriter(tmp_path, "7", fps=EIGHT, formats=["MP4", "GIF"]) as writer,
    ):
        writer.add_frame(smooth_frames(1)[0])
        raise RuntimeError("boom")
    assert listing(tmp_path) == ["00000-7", "00000-7/frame_0000.png"]
    assert f"1 frames are safe in {tmp_path / '00000-7'}" in caplog.text


def test_sizes_must_agree_and_the_rest_goes_on(tmp_path):
    with ClipWriter(tmp_path, "7", fps=EIGHT, formats=["PNG"]) as writer:
        writer.add_frame(smooth_frames(1, 8, 8)[0])
        with pytest.raises(OutputError, match=r"size of its first, 8×8, got 8×6 for frame 1\..*1 frames are safe"):
            writer.add_frame(smooth_frames(1, 8, 6)[0])
        writer.add_frame(smooth_frames(1, 8, 8)[0])
        assert len(writer.finish().frames) == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"formats": []}, "Formats must be some of MP4, GIF, PNG, got"),
        ({"formats": ["AVI"]}, "got .*AVI"),
        ({"fps": Fraction(0)}, "`fps` must be above 0"),
        ({"fps": Fraction(-8)}, "`fps` must be above 0"),
        ({"loop_count": -1}, "`loop_count` must be 0"),
        ({"loop_count": 65536}, "`loop_count` must be 0"),
        ({"stem": "a/b"}, "plain file name"),
        ({"infotext": ["one"]}, r"one per frame \(2\), got 1"),
        ({"frames": []}, "at least one frame"),
    ],
)
def test_bad_arguments_leave_nothing(tmp_path, changed, message):
    arguments = {"frames": smooth_frames(2), "stem": "7", "fps": EIGHT, "formats": ["GIF"], **changed}
    with pytest.raises(OutputError, match=message):
        save_clip(arguments.pop("frames"), tmp_path, **arguments)
    assert listing(tmp_path) == []


def test_finished_means_finished(tmp_path):
    writer = ClipWriter(tmp_path, "7", fps=EIGHT, formats=["GIF"])
    writer.add_frame(smooth_frames(1)[0])
    writer.finish()
    with pytest.raises(OutputError, match="takes no more frames"):
        writer.add_frame(smooth_frames(1)[0])
    with pytest.raises(OutputError, match="finished once"):
        writer.finish()


def test_folder_under_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"got: Not a directory\. A file stands where a folder must be"):
        save_clip(smooth_frames(1), tmp_path / "file" / "out", stem="7", fps=EIGHT, formats=["GIF"])


def test_failing_encoder_leaves_frames_and_the_other_formats(tmp_path, monkeypatch):
    def write_half(path, source):
        path.write_bytes(b"half")
        raise RuntimeError("codec on fire")

    table = MappingProxyType({"MP4": ClipFormat(".mp4", write_half), "GIF": CLIP_FORMATS["GIF"]})
    monkeypatch.setattr(writer_module, "CLIP_FORMATS", table)
    with pytest.raises(IncompleteClipError, match="codec on fire") as caught:
        save_clip(smooth_frames(2), tmp_path, stem="7", fps=EIGHT, formats=["MP4", "GIF"])
    assert list(caught.value.failures) == ["MP4"]
    assert list(caught.value.clip.files) == ["GIF"]
    assert f"All 2 frames are safe in {tmp_path / '00000-7'}" in str(caught.value)
    assert listing(tmp_path) == ["00000-7", "00000-7.gif", "00000-7/frame_0000.png", "00000-7/frame_0001.png"]


def test_a_name_taken_meanwhile_is_not_overwritten(tmp_path):
    writer = ClipWriter(tmp_path, "7", fps=EIGHT, formats=["GIF"])
    writer.add_frame(smooth_frames(1)[0])
    (tmp_path / "00000-7.gif").write_text("another program's")
    with pytest.raises(IncompleteClipError, match="Something of that name is there"):
        writer.finish()
    assert (tmp_path / "00000-7.gif").read_text() == "another program's"
    assert (tmp_path / "00000-7" / "frame_0000.png").is_file()


LIMITED = """
import json, resource, signal, sys
from fractions import Fraction
from motion.errors import OutputError
from motion.video import ClipWriter, IncompleteClipError
from tests.video.clips import noise_frames
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    with ClipWriter(sys.argv[1], "7", fps=Fraction(8), formats=["MP4", "GIF"]) as writer:
        for frame in noise_frames(12, int(sys.argv[3])):
            writer.add_frame(frame)
        writer.finish()
except IncompleteClipError as error:
    print(json.dumps(error.failures))
except OutputError as error:
    print(json.dumps(str(error)))
"""


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_disk_that_takes_no_more_leaves_the_frames(tmp_path):
    """A real failure inside the encoders: each frame fits under the limit, the clips don't."""
    output, _ = python(LIMITED, tmp_path, 20_000, 64).communicate(timeout=60)
    failures = json.loads(output)
    assert set(failures) == {"MP4", "GIF"}
    assert all("must be written whole, got: File too large" in reason for reason in failures.values())
    assert listing(tmp_path) == ["00000-7", *(f"00000-7/frame_{index:04d}.png" for index in range(12))]


@pytest.mark.skipif(os.name != "posix", reason="needs a limit on file sizes")
def test_frame_that_does_not_fit_leaves_nothing_half(tmp_path):
    output, _ = python(LIMITED, tmp_path, 5_000, 64).communicate(timeout=60)
    assert "Frame 0 must be written to" in json.loads(output)
    assert listing(tmp_path) == []


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("format_name", ["MP4", "GIF"])
def test_killed_while_encoding(tmp_path, format_name):
    script = """
import sys
from fractions import Fraction
from motion.video import save_clip
from tests.video.clips import noise_frames
save_clip(noise_frames(12, 320), sys.argv[1], stem="7", fps=Fraction(8), formats=[sys.argv[2]])
"""
    process = python(script, tmp_path, format_name)
    unfinished = tmp_path / "00000-7" / f".unfinished.{format_name.lower()}"
    deadline = time.monotonic() + 60
    while not unfinished.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == ["00000-7"]
    for source, path in zip(noise_frames(12, 320), sorted((tmp_path / "00000-7").glob("frame_*")), strict=True):
        with Image.open(path) as image:
            np.testing.assert_array_equal(np.asarray(image), source)


def test_two_processes_never_take_one_name(tmp_path):
    script = """
import sys
from fractions import Fraction
import numpy as np
from motion.video import save_clip
for index in range(25):
    frame = np.full((4, 4, 3), index, np.uint8)
    save_clip([frame], sys.argv[1], stem="7", fps=Fraction(8), formats=["GIF"], infotext=f"{sys.argv[2]} {index}")
"""
    processes = [python(script, tmp_path, name) for name in ("a", "b")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    texts = [read_infotext(path) for path in tmp_path.iterdir()]
    assert sorted(texts) == sorted(f"{name} {index}" for name in "ab" for index in range(25))


@pytest.mark.parametrize("size", [(1, 1), (63, 33)])
def test_one_frame_in_every_format(tmp_path, size):
    clip = save_clip(smooth_frames(1, *size), tmp_path, stem="7", fps=EIGHT, formats=FORMATS)
    assert list(clip.files) == list(FORMATS)
    assert len(clip.frames) == 1


def test_format_names_are_kept_once():
    assert check_format_names(["GIF", "MP4", "GIF"]) == ("GIF", "MP4")
