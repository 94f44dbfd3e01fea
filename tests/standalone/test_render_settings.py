from __future__ import annotations

import pytest

from motion.errors import SettingsError
from motion.settings import MotionSettings
from motion.standalone.render_settings import RenderSettings

REFUSED = [
    ({"steps": 0}, "`steps` must be a whole number from 1 to 150, got 0"),
    ({"steps": 20.0}, "`steps` must be a whole number, got 20.0"),
    ({"steps": True}, "`steps` must be a whole number, got True"),
    ({"cfg_scale": 0.5}, "`cfg_scale` must be a number from 1 to 30"),
    ({"cfg_scale": float("nan")}, "`cfg_scale` must be a number, got nan"),
    ({"width": 100}, "`width` must be a multiple of 8, got 100. Choose 96 or 104"),
    ({"height": 4096}, "`height` must be a whole number from 64 to 2048"),
    ({"seed": -2}, "`seed` must be a whole number from -1 to 4294967295"),
    ({"prompt": None}, "`prompt` must be text, got None"),
    ({"sampler": 3}, "`sampler` must be text"),
    ({"denoising_strength": 1.5}, "`denoising_strength` must be a number from 0 to 1"),
    ({"hires_scale": 2.0, "init_image": "a.png"}, "`hires_scale` must be 1 with `init_image`, got 2"),
    ({"motion": 16}, "`motion` must be MotionSettings or a mapping of its fields, got int"),
    ({"motion": {"num_frames": 0}}, "num_frames"),
    ({"step": 3}, "Unknown field `step`.*Did you mean `steps`"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_bad_values_are_refused_by_name(fields, message):
    with pytest.raises(SettingsError, match=message):
        RenderSettings.from_mapping(fields)


def test_bounds_themselves_are_allowed():
    settings = RenderSettings(steps=150, cfg_scale=1, width=64, height=2048, seed=2**32 - 1, denoising_strength=0)
    assert (settings.width, settings.cfg_scale) == (64, 1)


def test_motion_is_on_by_default_and_a_mapping_is_checked():
    assert RenderSettings().clip == MotionSettings(enabled=True)
    assert RenderSettings(motion={"num_frames": 4}).clip == MotionSettings(enabled=True, num_frames=4)
