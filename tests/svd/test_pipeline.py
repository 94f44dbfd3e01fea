"""The whole pipeline on small weights, with diffusers' pipeline as oracle."""

from __future__ import annotations

import diffusers
import numpy as np
import pytest
import torch
import transformers
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as oracle_module
from PIL import Image

from motion.errors import CheckpointError, SettingsError
from motion.svd.pipeline import SvdPipeline
from motion.svd.settings import SvdSettings
from tests.svd_folders import NUM_FRAMES, small_folder, small_unet, small_vae
from tests.svd_networks import write_small_file

CLIP_SIZE = 28
RUN = {"width": 48, "height": 32, "num_inference_steps": 5, "noise_aug_strength": 0.1, "motion_bucket_id": 100}
SCHEDULE = {  # of the public folders
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}


def picture(seed=0, width=48, height=32):
    array = np.random.RandomState(seed).randint(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(array)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return small_folder(tmp_path_factory.mktemp("svd"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return SvdPipeline.from_file(folder, precision="fp32", device="cpu")


@pytest.fixture
def oracle(folder, monkeypatch):
    """Diffusers' pipeline of the same folder; its size of CLIP's pictures is fixed, ours is the encoder's."""
    resize = oracle_module._resize_with_antialiasing
    monkeypatch.setattr(
        oracle_module, "_resize_with_antialiasing", lambda images, size: resize(images, (CLIP_SIZE, CLIP_SIZE))
    )
    clip = transformers.CLIPVisionModelWithProjection.from_pretrained(folder / "image_encoder")
    pipeline = diffusers.StableVideoDiffusionPipeline(
        vae=small_vae(folder),
        image_encoder=clip.eval().requires_grad_(False),
        unet=small_unet(folder),
        scheduler=diffusers.EulerDiscreteScheduler(**SCHEDULE),
        feature_extractor=transformers.CLIPImageProcessor(size=CLIP_SIZE, crop_size=CLIP_SIZE),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def assert_close(result, expected):
    torch.testing.assert_close(result, torch.as_tensor(expected), atol=1e-4, rtol=0)


@pytest.mark.parametrize("output_type", ["latent", "pt"])
def test_five_steps_equal_diffusers(pipeline, oracle, output_type):
    expected = oracle(picture(), generator=generator(), output_type=output_type, **RUN).frames
    result = pipeline(picture(), generator=generator(), output_type=output_type, **RUN)
    assert_close(result.frames, expected)
    assert (result.seed, result.interrupted) == (None, False)


@pytest.mark.parametrize(("num_pictures", "num_videos"), [(2, 1), (1, 2)])
def test_latents_pictures_and_videos_equal_diffusers(pipeline, oracle, num_pictures, num_videos):
    """Not both at once: then diffusers 0.31 gives clips the embedding of one picture and the latents of another."""
    latents = torch.randn(2, NUM_FRAMES, 4, 16, 24, generator=generator(9))
    pictures = [picture(seed) for seed in range(num_pictures)]
    run = {**RUN, "fps": 12, "output_type": "latent"}
    # diffusers scales the noise in place, so it gets its own
    theirs = {"latents": latents.clone(), "num_videos_per_prompt": num_videos}
    expected = oracle(pictures, generator=generator(), **theirs, **run).frames
    ours = {"latents": latents, "num_videos_per_picture": num_videos}
    assert_close(pipeline(pictures, generator=generator(), **ours, **run).frames, expected)


def test_clips_of_one_picture_lie_side_by_side(pipeline):
    run = {**RUN, "num_inference_steps": 1, "output_type": "latent", "noise_aug_strength": 0.0}
    latents = torch.randn(1, NUM_FRAMES, 4, 16, 24, generator=generator(9))
    alone = [pipeline(picture(seed), latents=latents, **run).frames[0] for seed in (1, 2)]
    pictures = [picture(1), picture(2)]
    together = pipeline(pictures, latents=latents.repeat(4, 1, 1, 1, 1), num_videos_per_picture=2, **run).frames
    assert_close(together, torch.stack([alone[0], alone[0], alone[1], alone[1]]))


def test_output_types_agree(pipeline):
    run = {**RUN, "num_inference_steps": 1, "seed": 3}
    pixels, arrays, pictures = (pipeline(picture(), output_type=kind, **run).frames for kind in ("pt", "np", "pil"))
    assert pixels.shape == (1, NUM_FRAMES, 3, 32, 48)
    assert np.array_equal(arrays, pixels.permute(0, 1, 3, 4, 2).numpy())
    assert [len(clip) for clip in pictures] == [NUM_FRAMES]
    assert np.array_equal(np.asarray(pictures[0][1]), np.rint(arrays[0, 1] * 255).astype(np.uint8))


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m"])
def test_a_seed_means_the_same_clip(pipeline, sampler):
    run = {**RUN, "num_inference_steps": 3, "sampler": sampler, "output_type": "latent"}
    first, again, other = (pipeline(picture(), seed=seed, **run) for seed in (7, 7, 8))
    assert first.seed == 7
    assert torch.equal(first.frames, again.frames)
    assert not torch.equal(first.frames, other.frames)
    assert pipeline(picture(), **{**run, "num_inference_steps": 1}).seed is not None


def test_guidance_of_one_is_the_conditioned_prediction_alone(pipeline):
    calls = []
    handle = pipeline.networks.unet.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    run = {**RUN, "num_inference_steps": 2, "seed": 1, "output_type": "latent"}
    try:
        pipeline(picture(), min_guidance_scale=1.0, max_guidance_scale=1.0, **run)
        alone = len(calls)
        pipeline(picture(), **run)
    finally:
        handle.remove()
    assert (alone, len(calls) - alone) == (2, 4)
    assert set(calls) == {NUM_FRAMES}  # cond and uncond are not in memory together


def test_steps_of_all_clips_are_counted(pipeline):
    steps = []
    run = {**RUN, "num_inference_steps": 2, "output_type": "latent"}
    pipeline([picture(), picture(1)], on_step=lambda *step: steps.append(step), **run)
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_interrupted_run_gives_what_it_has(pipeline):
    steps = []
    result = pipeline(
        picture(), on_step=lambda *step: steps.append(step), should_stop=lambda: len(steps) == 1, seed=1, **RUN
    )
    assert result.interrupted
    assert steps == [(1, 5)]
    assert len(result.frames[0]) == NUM_FRAMES


class StoppedError(Exception):
    pass


def test_what_a_callback_raises_ends_the_run(pipeline):
    def stop(done, total):
        raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        pipeline(picture(), on_step=stop, **RUN)


def test_a_single_file(tmp_path):
    path = write_small_file(tmp_path / "small.safetensors", dtype=torch.float16)
    pipeline = SvdPipeline.from_file(path, precision="bf16", device="cpu", offload=False)
    assert pipeline.networks.unet.dtype == torch.bfloat16
    assert pipeline.networks.decoder.dtype == torch.float32
    settings = SvdSettings(width=48, height=32, num_inference_steps=2, seed=0, decode_chunk_size=3)
    frames = pipeline(picture(), settings, output_type="pt").frames
    assert frames.shape == (1, 4, 3, 32, 48)
    assert frames.isfinite().all()


def test_a_picture_of_another_shape_is_fitted(pipeline):
    run = {**RUN, "num_inference_steps": 1, "seed": 2, "output_type": "latent"}
    wide = picture(3, width=90, height=32)
    cropped, padded = (pipeline(wide, fit=fit, **run).frames for fit in ("crop", "pad"))
    assert not torch.equal(cropped, padded)


def test_more_frames_than_trained_are_noted(pipeline):
    run = {**RUN, "num_inference_steps": 1, "output_type": "latent"}
    assert pipeline(picture(), **run).notes == ()
    (note,) = pipeline(picture(), num_frames=5, **run).notes
    assert "trained with 3 frames; in 5" in note


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ({"width": 50}, r"`width` must be a multiple of 4, got 50. Take 48 or 52\."),
        ({"num_frames": 0}, "`num_frames` must be a whole number from 1"),
        ({"motion_bucket_id": 300}, "`motion_bucket_id` must be a whole number from 0 to 255, got 300"),
        ({"output_type": "gif"}, "`output_type` must be one of pil, np, pt, latent, got 'gif'"),
        ({"steps": 3}, "`steps` is no setting of image to video"),
        ({"generator": generator(), "seed": 1}, r"`generator` and `seed` \(1\) were given"),
        ({"settings": SvdSettings(), "fps": 3}, "`settings` and .*fps.* were given"),
        ({"latents": torch.zeros(3, 4, 8, 8)}, r"must have the shape \(1, 3, 4, 16, 24\), got \(3, 4, 8, 8\)"),
    ],
)
def test_what_can_not_be(pipeline, call, message):
    fields = {} if "settings" in call else RUN
    with pytest.raises(SettingsError, match=message):
        pipeline(picture(), **{**fields, **call})


@pytest.mark.parametrize(("image", "message"), [([], "at least one picture"), ("a.png", "must be a Pillow image")])
def test_no_picture(pipeline, image, message):
    with pytest.raises(SettingsError, match=message):
        pipeline(image, **RUN)


def test_weights_that_can_not_be(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        SvdPipeline.from_file(tmp_path / "none.safetensors", device="cpu")
