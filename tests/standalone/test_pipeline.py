from __future__ import annotations

import os
import weakref
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from motion.errors import CheckpointError, OutputError, SettingsError
from motion.standalone import Pipeline, RenderSettings, host_state
from motion.video import read_infotext
from tests.demo_host import made_files, small


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return made_files(tmp_path_factory)


@pytest.fixture(scope="module")
def pipeline(files):
    _, checkpoint, motion_module = files
    with Pipeline.from_files(checkpoint, motion_module, precision="fp32") as pipeline:
        yield pipeline


@pytest.fixture(scope="module")
def clip(pipeline):
    return pipeline(small())


def test_closing_frees_the_checkpoint(files):
    _, checkpoint, motion_module = files
    assert not host_state.is_running()
    with Pipeline.from_files(checkpoint, motion_module, precision="fp32") as pipeline:
        pipeline(small(steps=1))
        model = weakref.ref(host_state.current().sd_model_data.sd_model)
        assert model() is not None
    assert model() is None


def test_a_clip_has_its_frames_rate_and_infotext(clip):
    assert (clip.frames.shape, clip.frames.dtype, len(clip)) == ((3, 64, 64, 3), np.uint8, 3)
    assert clip.fps == Fraction(8)
    assert clip.files == ()
    for part in ("a lighthouse", "Seed: 5", "Sampler: Euler", "Steps: 2", "Motion frames: 3", "random-mm-v2"):
        assert part in clip.infotext
    floats = clip.to_numpy()
    assert floats.dtype == np.float32
    np.testing.assert_array_equal(np.rint(floats * 255), clip.frames)


def test_the_same_seed_gives_the_same_bytes_whatever_ran_between(pipeline, clip):
    other = pipeline(small(motion={"num_frames": 2}, seed=6, sampler="Euler a", clip_skip=2))
    assert not np.array_equal(other.frames, clip.frames[:2])
    np.testing.assert_array_equal(pipeline(small()).frames, clip.frames)


def test_settings_may_be_a_mapping(pipeline):
    values = {"prompt": "a boat", "steps": 2, "width": 64, "height": 64, "seed": 1, "motion": {"num_frames": 2}}
    clip = pipeline(values)
    assert len(clip) == 2
    np.testing.assert_array_equal(pipeline(RenderSettings(**values)).frames, clip.frames)
    with pytest.raises(SettingsError, match="Unknown field `step`"):
        pipeline({"prompt": "a boat", "step": 2})


def test_given_noise_takes_the_place_of_the_seeds(pipeline, clip):
    drawn = pipeline(small(), generator=torch.Generator().manual_seed(3))
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    np.testing.assert_array_equal(pipeline(small(), latents=noise).frames, drawn.frames)
    assert not np.array_equal(drawn.frames, clip.frames)


def test_the_noise_of_the_seeds_given_as_latents_gives_the_seeds_clip(pipeline):
    noise = torch.cat([torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5 + i)) for i in range(3)])
    for sampler in ("Euler", "Euler a"):
        settings = small(sampler=sampler)
        np.testing.assert_array_equal(pipeline(settings, latents=noise).frames, pipeline(settings).frames)


def test_latents_of_another_shape_are_refused(pipeline):
    with pytest.raises(SettingsError, match=r"`latents` must have the shape \(3, 4, 8, 8\), got \(3, 4, 8, 9\)"):
        pipeline(small(), latents=torch.zeros(3, 4, 8, 9))


@pytest.mark.parametrize("motion", [{"seed_behaviour": "FreeNoise"}, {"frame_seeds": "1 2 3"}])
def test_given_noise_and_a_rule_for_noise_are_refused(pipeline, motion):
    given = {"latents": torch.zeros(3, 4, 8, 8)}, {"generator": torch.Generator()}
    settings = {"prompt": "a boat", "width": 64, "height": 64, "motion": {"num_frames": 3, **motion}}
    for noise in given:
        with pytest.raises(SettingsError, match="`seed_behaviour` must be 'per frame' and `frame_seeds` empty"):
            pipeline(settings, **noise)


def test_on_step_sees_every_step(pipeline):
    seen = []
    pipeline(small(steps=4), on_step=lambda step, total, latents: seen.append((step, total, tuple(latents.shape))))
    assert seen == [(step, 4, (3, 4, 8, 8)) for step in (1, 2, 3, 4)]


def test_what_on_step_raises_ends_the_render_and_leaves_no_trace(pipeline, clip):
    unet = host_state.current().sd_model_data.sd_model.model.diffusion_model

    def stop(step, total, latents):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline(small(), on_step=stop)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in unet.modules())
    np.testing.assert_array_equal(pipeline(small()).frames, clip.frames)


def test_motion_scale_0_makes_the_seeds_stills(pipeline, clip):
    stills = pipeline(small(motion={"motion_scale": 0}))
    still = pipeline(small(motion={"enabled": False}, seed=6))
    assert len(still) == 1
    np.testing.assert_allclose(stills.frames[1].astype(int), still.frames[0], atol=1)
    assert not np.array_equal(stills.frames, clip.frames)


def test_a_picture_to_start_from(pipeline, tmp_path):
    picture = Image.linear_gradient("L").resize((80, 64)).convert("RGB")
    picture.save(tmp_path / "start.png")
    from_file = pipeline(small(init_image=tmp_path / "start.png", denoising_strength=0.6))
    from_array = pipeline(small(init_image=np.asarray(picture), denoising_strength=0.6))
    assert from_file.frames.shape == (3, 64, 64, 3)
    np.testing.assert_array_equal(from_file.frames, from_array.frames)


def test_a_hires_pass(pipeline):
    seen = []
    settings = small(hires_scale=2.0, hires_steps=2, denoising_strength=0.5)
    clip = pipeline(settings, on_step=lambda step, total, latents: seen.append((step, total)))
    assert clip.frames.shape == (3, 128, 128, 3)
    assert seen[0][1] == 4


def test_an_output_folder_receives_the_files(pipeline, tmp_path):
    clip = pipeline(small(motion={"formats": ["MP4", "GIF", "PNG"]}), output_dir=tmp_path)
    suffixes = sorted(path.suffix for path in clip.files)
    assert suffixes == ["", ".gif", ".mp4"]
    assert sorted(path for path in tmp_path.iterdir()) == sorted(clip.files)


def test_a_clip_can_be_saved(clip, tmp_path):
    path = clip.save(tmp_path / "clip.mp4")
    with av.open(str(path)) as container:
        assert len(list(container.decode(video=0))) == 3
    assert read_infotext(clip.save(tmp_path / "clip.gif")) == clip.infotext
    with pytest.raises(OutputError, match="Something of that name is there already"):
        clip.save(tmp_path / "clip.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.gif", "clip.mp4"]
    with pytest.raises(OutputError, match=r"must end in \.mp4 or \.gif, got clip.avi"):
        clip.save(tmp_path / "clip.avi")


def test_refusals(pipeline, files, tmp_path):
    _, checkpoint, _ = files
    for error, settings, message in (
        (CheckpointError, small(motion={"motion_module": "nowhere"}), "there is no motion module of this name"),
        (CheckpointError, small(motion={"motion_module": str(checkpoint)}), "checkpoint"),
        (SettingsError, small(motion={"context_length": 33}), "at most 32"),
        (SettingsError, small(sampler="Nothing"), "Sampler 'Nothing' is unknown"),
        (SettingsError, small(scheduler="Nothing"), "Scheduler 'Nothing' is unknown"),
        (SettingsError, small(init_image=tmp_path / "none.png"), "`init_image` must be a picture"),
        (SettingsError, small(init_image=np.zeros((8, 8), np.uint8)), "uint8 array h w 3"),
    ):
        with pytest.raises(error, match=message):
            pipeline(settings)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="must be a folder"):
        pipeline(small(), output_dir=tmp_path / "file")


def test_files_that_cannot_be_loaded(files, pipeline, tmp_path):
    _, checkpoint, motion_module = files
    with pytest.raises(SettingsError, match="`svd` is not supported"):
        Pipeline.from_files(checkpoint, svd="svd.safetensors")
    with pytest.raises(CheckpointError, match="does not exist"):
        Pipeline.from_files(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="is a folder"):
        Pipeline.from_files(tmp_path)
    with pytest.raises(CheckpointError, match="motion module"):
        Pipeline.from_files(motion_module, precision="fp32")
    with pytest.raises(SettingsError, match="`precision` must be that of the running host"):
        Pipeline.from_files(checkpoint, precision="bf16")


def test_two_pipelines_share_the_host(files, pipeline, clip):
    _, checkpoint, motion_module = files
    with Pipeline.from_files(checkpoint, motion_module, precision="fp32") as second:
        np.testing.assert_array_equal(second(small()).frames, clip.frames)
    np.testing.assert_array_equal(pipeline(small()).frames, clip.frames)


def test_nothing_is_left_in_the_working_folder(pipeline, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pipeline(small())
    assert os.listdir(tmp_path) == []


def test_a_second_pipeline_must_share_the_first_ones_folder(pipeline, files, tmp_path):
    with pytest.raises(SettingsError, match=r"`data_dir` must be that of the running host .*, got .*other"):
        Pipeline.from_files(files[1], data_dir=tmp_path / "other", precision="fp32")
    shared_folder = host_state.current().paths.data_path
    with Pipeline.from_files(files[1], data_dir=shared_folder, precision="fp32"):
        assert host_state.is_running()
    assert host_state.is_running()
