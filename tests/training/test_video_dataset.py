"""A folder of videos as a data set: what is found wrong with it, and what is cut from it."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from motion.errors import SettingsError
from motion.training.video_dataset import DatasetError, DatasetSettings, check_dataset, describe_dataset
from motion.video.reading import inspect_clip, read_frames
from tests.training.tiny_lora import FRAMES, write_video

PORTRAIT = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 80 << 16, 0, 1 << 30)
"""The matrix of a track that players turn by 90° clockwise."""


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for name in ("a", "b"):
        write_video(folder / f"{name}.mp4", caption=f"a box {name}\nin  two lines ")
    return folder


def settings(folder, **fields):
    return DatasetSettings(folder, **{"num_frames": 4, "size": (64, 64), **fields})


def places(frames):
    """First column of the bar in each frame, in the pixels of the video; its height of 80 was scaled to 64."""
    columns = [np.flatnonzero(frame[:, :, 0].mean(axis=0) > 128) for frame in frames]
    return [round(found[0] / 0.8 + (96 - 80) / 2) for found in columns]


def problem_of(folder, **fields):
    (problem,) = check_dataset(settings(folder, **fields)).problems
    return problem


def test_a_good_folder_is_described(good):
    dataset = check_dataset(settings(good, frame_stride=2))
    dataset.require_usable()
    lines = describe_dataset(dataset)
    assert lines[0] == f"2 of 2 videos in {good} can be used."
    assert lines[1] == "2 clips of 4 frames at 64×64 pixels will be cut from them."
    assert lines[2] == f"  a.mp4: 96×80, {FRAMES} frames, 24 fps, every 2nd taken; 'a box a in two lines'"


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_clips_are_so_many_frames_so_far_apart_from_a_seeded_place(good, stride):
    dataset = check_dataset(settings(good, frame_stride=stride, seed=3))
    clips = list(dataset.clips())
    assert [clip.captions for clip in clips] == [("a box a in two lines",), ("a box b in two lines",)]
    for video, clip in zip(dataset.videos, clips, strict=True):
        assert clip.frames.shape == (4, 64, 64, 3)
        wanted = [2 * (video.starts[0] + stride * index) for index in range(4)]
        inside = [(got, want) for got, want in zip(places(clip.frames), wanted, strict=True) if want > 10]
        assert all(abs(got - want) <= 2 for got, want in inside)
    assert dataset == check_dataset(settings(good, frame_stride=stride, seed=3))


def test_more_clips_of_a_video_are_at_different_places(good):
    dataset = check_dataset(settings(good, frame_stride=1, clips_per_video=5))
    assert all(len(set(video.starts)) == 5 for video in dataset.videos)
    assert all(max(video.starts) + 3 < FRAMES for video in dataset.videos)
    assert len(list(dataset.clips())) == 10
    shorter = check_dataset(settings(good, frame_stride=6, clips_per_video=5))
    assert [len(video.starts) for video in shorter.videos] == [2, 2], "there is room for two"


def test_the_usual_stride_comes_near_to_8_frames_a_second_as_far_as_the_video_is_long_enough(good):
    assert {video.stride for video in check_dataset(settings(good)).videos} == {3}
    assert {video.stride for video in check_dataset(settings(good, num_frames=8)).videos} == {2}
    assert {video.stride for video in check_dataset(settings(good, num_frames=FRAMES)).videos} == {1}


def test_the_key_tells_data_sets_apart(good):
    keys = [check_dataset(settings(good, **fields)).key for fields in ({}, {"size": (64, 128)}, {"frame_stride": 1})]
    assert len({*keys, check_dataset(settings(good)).key}) == 3


def test_a_folder_of_pictures_is_a_clip(tmp_path):
    folder = tmp_path / "pan"
    folder.mkdir()
    for index in range(10):
        Image.new("RGB", (64, 64), (20 * index, 0, 0)).save(folder / f"{index:03d}.png")
    (tmp_path / "pan.txt").write_text("a pan", encoding="utf-8")
    dataset = check_dataset(settings(tmp_path, frame_stride=2))
    (clip,) = dataset.clips()
    start = dataset.videos[0].starts[0]
    assert clip.frames[:, 0, 0, 0].tolist() == [20 * (start + 2 * index) for index in range(4)]
    (folder / "005.png").write_bytes(b"no picture")
    assert "005.png must be a picture" in problem_of(tmp_path)
    Image.new("RGB", (32, 64)).save(folder / "005.png")
    assert problem_of(tmp_path) == "pan: All frames must have one size, got 64×64, 32×64. Make them alike."


def test_a_video_filmed_upright_is_turned(tmp_path):
    path = write_video(tmp_path / "phone.mp4")
    content = bytearray(path.read_bytes())
    matrix = content.index(b"tkhd") + 44
    content[matrix : matrix + 36] = PORTRAIT
    path.write_bytes(content)
    assert (inspect_clip(path).width, inspect_clip(path).height) == (80, 96)
    first = np.asarray(next(read_frames(path)))
    assert first[4, :, 0].mean() > 200, "what was at the left is at the top"
    assert first[40:, :, 0].mean() < 20


def test_broken_videos_are_named(tmp_path):
    whole = write_video(tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "text.mov").write_text("no video at all", encoding="utf-8")
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    dataset = check_dataset(settings(tmp_path))
    assert [video.path.name for video in dataset.videos] == ["whole.mp4"]
    assert [problem.partition(":")[0] for problem in dataset.problems] == ["cut.mp4", "empty.mp4", "text.mov"]
    for problem in dataset.problems:
        assert "must be readable from start to end, got" in problem
    with pytest.raises(DatasetError, match=r"All 4 videos .* 3 can't be used: cut\.mp4: .* \(and 2 more\)"):
        dataset.require_usable()
    check_dataset(settings(tmp_path, skip_bad=True)).require_usable()


def test_a_video_whose_end_is_lost_is_broken(tmp_path):
    """The index is in front, as in videos made for the web, so that half of it can be decoded."""
    import av

    path = write_video(tmp_path / "web.mp4")
    with av.open(str(path)) as source, av.open(str(path) + ".mp4", "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    content = (tmp_path / "web.mp4.mp4").read_bytes()
    path.write_bytes(content[: -len(content) // 4])
    (tmp_path / "web.mp4.mp4").unlink()
    assert "web.mp4: " in problem_of(tmp_path)


def test_a_sound_without_pictures_is_refused(tmp_path):
    import av

    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert "must be a picture track in a video" in problem_of(tmp_path)


def test_captions_are_asked_for(tmp_path):
    write_video(tmp_path / "a.mp4", caption=None)
    assert "a.mp4: A video must have a caption in a.txt, which is not there." in problem_of(tmp_path)
    (tmp_path / "a.txt").write_text(" \n", encoding="utf-8")
    assert "a.txt, which is empty" in problem_of(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    assert "a.txt must be a text in UTF-8" in problem_of(tmp_path)
    (tmp_path / "a.txt").unlink()
    assert check_dataset(settings(tmp_path, default_caption="a box")).captions == ["a box"]


def test_a_video_that_is_too_short_is_named(tmp_path):
    write_video(tmp_path / "a.mp4", frames=7)
    assert "must have at least 8 frames, got 7. Take a longer one." in problem_of(tmp_path, num_frames=8)
    message = problem_of(tmp_path, frame_stride=3)
    assert "at least 10 frames at a frame stride of 3, got 7. Take a longer one, or lower the frame stride." in message


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"There must be videos .*, got none\. Put some there"):
        check_dataset(settings(tmp_path))
    with pytest.raises(DatasetError, match=r"must be in a folder, got .*nowhere, which is none"):
        check_dataset(settings(tmp_path / "nowhere"))


def test_a_video_that_goes_away_is_said(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    dataset = check_dataset(settings(tmp_path))
    write_video(path, frames=5)
    with pytest.raises(DatasetError, match=r"must have 20 frames as when it was checked"):
        list(dataset.clips())


def test_small_videos_are_noted(good):
    assert describe_dataset(check_dataset(settings(good, size=(128, 64))))[-1] == (
        "Note: smaller than the clips and scaled up: a.mp4, b.mp4."
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": (100, 64)}, r"`size` must be a multiple of 64 .* got 100×64"),
        ({"size": (64, 4096)}, "`size` must be a multiple of 64"),
        ({"num_frames": 1}, "`num_frames` must be from 2 to 1024, got 1"),
        ({"frame_stride": -1}, "`frame_stride` must be from 0 to 64"),
        ({"clips_per_video": 0}, "`clips_per_video` must be from 1 to 64"),
    ],
)
def test_settings_are_bounded(tmp_path, fields, message):
    with pytest.raises(SettingsError, match=message):
        settings(tmp_path, **fields)
