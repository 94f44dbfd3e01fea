import pytest

from motion.errors import SettingsError
from motion.svd.settings import SvdSettings, check_size


def test_defaults_are_diffusers():
    settings = SvdSettings()
    assert (settings.width, settings.height, settings.num_inference_steps) == (1024, 576, 25)
    assert (settings.min_guidance_scale, settings.max_guidance_scale) == (1.0, 3.0)
    assert (settings.fps, settings.motion_bucket_id, settings.noise_aug_strength) == (7, 127, 0.02)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_frames", 0),
        ("num_frames", 2.0),
        ("num_inference_steps", 0),
        ("num_inference_steps", None),
        ("motion_bucket_id", -1),
        ("motion_bucket_id", 256),
        ("noise_aug_strength", -0.1),
        ("noise_aug_strength", float("nan")),
        ("max_guidance_scale", float("inf")),
        ("fps", 0),
        ("fps", "7"),
        ("width", 8),
        ("height", 5000),
        ("decode_chunk_size", 0),
        ("decode_overlap", -1),
        ("num_videos_per_picture", True),
        ("seed", -1),
    ],
)
def test_numbers_out_of_range(name, value):
    with pytest.raises(SettingsError, match=rf"`{name}` must be a (?:whole )?number from .* to .*, got "):
        SvdSettings(**{name: value})


@pytest.mark.parametrize(("name", "value"), [("sampler", "Heun"), ("guidance", None), ("fit", "tile")])
def test_unknown_choices(name, value):
    with pytest.raises(SettingsError, match=f"`{name}` must be one of .*, got {value!r}"):
        SvdSettings(**{name: value})


def test_from_mapping():
    assert SvdSettings.from_mapping({"fps": 12}) == SvdSettings(fps=12)
    with pytest.raises(SettingsError, match=r"`motion_bucket` is no setting .* Did you mean `motion_bucket_id`\?"):
        SvdSettings.from_mapping({"motion_bucket": 1})
    with pytest.raises(SettingsError, match=r"`xyz` is no setting of image to video.* width"):
        SvdSettings.from_mapping({"xyz": 1})


def test_size():
    check_size(SvdSettings(width=1024, height=576), 64)
    with pytest.raises(SettingsError, match=r"`height` must be a multiple of 64, got 600. Take 576 or 640."):
        check_size(SvdSettings(height=600), 64)
