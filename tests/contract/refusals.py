"""Requests that can't work: each is refused with a message and a status, and no image is written."""

from __future__ import annotations

import re

import pytest

CASES = {
    "missing module": ({"motion_module": "no-such-module"}, "no-such-module.*no motion module"),
    "no module": ({"motion_module": ""}, "motion_module.*must name"),
    "another width": ({"motion_module": "wrong/wrong-width.safetensors"}, "channels"),
    "SDXL beta": ({"motion_module": "wrong/sdxl-beta.safetensors"}, "checkpoint, which is sd15.*sdxl"),
    "motion LoRA": ({"motion_module": "wrong/motion-lora.safetensors"}, "LoRA"),
    "SDXL motion LoRA": (
        {"motion_loras": "<lora:sdxl-motion-lora:1>"},
        "sdxl-motion-lora.*was made for sdxl.*motion module is for sd15",
    ),
    "web page": ({"motion_module": "wrong/web-page.safetensors"}, "HTML|web page"),
    "empty file": ({"motion_module": "wrong/empty.safetensors"}, "empty"),
    "no frames": ({"num_frames": 0}, "num_frames.*from 1 to"),
    "a thousand million frames": ({"num_frames": 10**9}, "num_frames.*from 1 to"),
    "frames in words": ({"num_frames": "many"}, "num_frames.*whole number"),
    "windows longer than the module knows": ({"context_length": 33}, "context_length.*at most 32"),
    "an overlap as long as the window": ({"context_overlap": 16}, "context_overlap.*smaller than.*16.*got 16"),
    "fps 0": ({"fps": 0}, "fps.*from 0.25"),
    "unknown field": ({"frames": 16}, "Unknown field.*frames.*num_frames"),
    "unknown format": ({"formats": ["AVI"]}, "formats.*'MP4', 'GIF', 'PNG'"),
    "motion scale": ({"motion_scale": 3}, "motion_scale.*from 0 to 2"),
    "motion of frames": ({"motion_scale_frames": "0: 1, 0.5: fast"}, "motion_scale_frames.*'0.5: fast'.*0 to 2"),
    "motion in no step": ({"motion_start": 0.5, "motion_end": 0.5}, "motion_start.*less than.*motion_end.*0.5"),
}
FAST_CASES = ("missing module", "SDXL beta", "fps 0", "unknown field", "a thousand million frames")


class RefusalContract:
    @pytest.mark.parametrize(
        "case", [pytest.param(case, marks=() if case in FAST_CASES else pytest.mark.thorough) for case in CASES]
    )
    def test_a_bad_argument(self, host, case):
        motion, expected = CASES[case]
        check_refused(host, expected, save_images=True, motion=motion)

    def test_a_checkpoint_as_motion_module(self, host):
        path = host.data_dir / "models" / "Stable-diffusion" / "narrow.safetensors"
        check_refused(host, "checkpoint", motion={"motion_module": str(path)})

    @pytest.mark.thorough
    def test_a_refiner(self, host):
        check_refused(host, "refiner", refiner_checkpoint="narrow", refiner_switch_at=0.5)

    def test_a_file_where_the_output_folder_should_be(self, host):
        folder = host.data_dir / "outputs" / "txt2img-images" / "motion"
        aside = folder.with_name("motion-aside")
        folder.mkdir(parents=True, exist_ok=True)
        folder.rename(aside)
        folder.write_text("in the way")
        try:
            check_refused(host, "motion must be a folder", save_images=True)
        finally:
            folder.unlink()
            aside.rename(folder)

    @pytest.mark.thorough
    def test_the_next_request_works(self, host):
        host.clip(motion={"fps": 0})
        assert len(host.clip().mp4s) == 1


def check_refused(host, expected: str, **fields) -> None:
    """A 4xx answer whose message matches, before any sampling and without a file."""
    written = host.written_files()
    answer = host.clip(**fields)
    assert answer.status == 422, answer.body
    assert re.search(expected, answer.message, re.DOTALL), answer.message
    assert host.record().get("unet_calls", []) == []
    assert host.written_files() == written
