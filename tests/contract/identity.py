"""After a clip the host is as it was: pictures bit for bit, and everything of the model that can be looked at."""

from __future__ import annotations

import time
from contextlib import contextmanager

import pytest

from tests.contract.clips import init_image

STILL = {"batch_size": 2, "steps": 2, "negative_prompt": "fog"}
HOOKS = (
    *("setup", "before_process", "process", "before_process_batch", "after_extra_networks_activate", "process_batch"),
    *("process_before_every_sampling", "cfg_denoiser", "before_hr", "post_sample", "postprocess_batch"),
    *("postprocess_batch_list", "postprocess_image", "postprocess_maskoverlay", "postprocess_image_after_composite"),
    "postprocess",
)
FAST_HOOKS = ("process_before_every_sampling",)
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.5}


def wait_for_step(host, step: int, *, seconds: float = 60) -> dict:
    """The progress answer that first shows `step`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        progress = host.get("/sdapi/v1/progress")
        if progress["state"]["sampling_step"] >= step:
            return progress
        time.sleep(0.05)
    raise AssertionError(f"the generation did not reach step {step} in {seconds} s")


@contextmanager
def unchanged(host):
    """The same still before and after the block, and no difference that the probe can find."""
    before = host.txt2img(**STILL)
    host.post("/contract/baseline")
    yield
    assert host.get("/contract/changes")["changes"] == []
    assert host.txt2img(**STILL).files == before.files


class IdentityContract:
    @pytest.mark.parametrize(
        "module", ["v1", pytest.param("v2", marks=pytest.mark.thorough), pytest.param("v3", marks=pytest.mark.thorough)]
    )
    def test_after_a_clip(self, host, module):
        with unchanged(host):
            assert host.clip(module=module).status == 200

    @pytest.mark.thorough
    def test_after_two_modules_a_picture_to_picture_and_a_hires_clip(self, host):
        host.img2img(init_image())  # Forge and reForge load the autoencoder when it is first needed
        with unchanged(host):
            assert host.clip(module="v3").status == 200
            assert host.clip(module="v1", **HIRES).status == 200
            assert host.clip_from(init_image(), module="v2", steps=4).status == 200

    @pytest.mark.parametrize(
        "hook", [pytest.param(hook, marks=() if hook in FAST_HOOKS else pytest.mark.thorough) for hook in HOOKS]
    )
    def test_after_a_neighbours_hook_has_raised(self, host, hook):
        with unchanged(host):
            answer = host.clip(probe={"raise_in": hook}, **(HIRES if hook == "before_hr" else {}))
            assert len(answer.mp4s) == 1  # the host goes on after it, so must we
            assert f"probe: {hook}" in host.log.read_text(errors="replace")

    @pytest.mark.parametrize(
        "number", [pytest.param(1, marks=pytest.mark.thorough), 2, pytest.param(3, marks=pytest.mark.thorough)]
    )
    def test_after_a_unet_call_has_raised(self, host, number):
        with unchanged(host):
            answer = host.clip(steps=3, probe={"raise_in_unet_call": number})
            assert (answer.status, answer.message) == (500, f"probe: UNet call {number}")

    @pytest.mark.thorough
    def test_after_the_hires_pass_has_raised(self, host):
        with unchanged(host):
            assert host.clip(steps=3, probe={"raise_in_unet_call": 4}, **HIRES).status == 500

    def test_after_the_decoder_has_raised(self, host):
        full = {} if host.kind == "embedded" else {"override_settings": {"sd_vae_decode_method": "Full"}}
        host.txt2img(**full)  # Forge loads the autoencoder for the first picture that it decodes
        with unchanged(host):
            answer = host.clip(probe={"raise_in_vae": True}, **full)
            assert (answer.status, answer.message) == (500, "probe: VAE decoder")

    def test_after_the_writer_could_not_write(self, host):
        blocked = host.data_dir / "outputs" / "txt2img-images" / "motion"
        try:
            with unchanged(host):
                answer = host.clip(save_images=True, probe={"break_output": True})
                assert answer.status == 200
                assert len(answer.pngs) == 4  # the frames come back although they could not be written
                assert answer.mp4s == []
        finally:
            blocked.unlink(missing_ok=True)

    def test_after_an_interrupt(self, host):
        with unchanged(host):
            thread, answers = host.clip_in_background(steps=60, probe={"slow_seconds": 0.1})
            progress = wait_for_step(host, 2)
            assert 0 < progress["progress"] < 1
            began = time.monotonic()
            host.post("/sdapi/v1/interrupt")
            thread.join(timeout=60)
            assert time.monotonic() - began < 30
            assert answers[0].status == 200
            assert len(host.record()["unet_calls"]) < 60
            assert len(answers[0].pixels) == 4

    def test_with_a_neighbours_hooks_there_before(self, host):
        plain = host.txt2img(**STILL).files
        host.post("/contract/neighbour_on")
        try:
            assert host.txt2img(**STILL).files != plain
            with unchanged(host):
                assert host.clip(module="v1").status == 200
        finally:
            host.post("/contract/neighbour_off")
        assert host.txt2img(**STILL).files == plain

    def test_with_a_neighbours_hooks_installed_during_the_clip(self, host):
        plain = host.txt2img(**STILL).files
        host.post("/contract/baseline")
        try:
            assert host.clip(module="v1", probe={"neighbour_during": True}).status == 200
            assert host.txt2img(**STILL).files != plain
        finally:
            host.post("/contract/neighbour_off")
        assert host.get("/contract/changes")["changes"] == []
        assert host.txt2img(**STILL).files == plain
