"""The one field table: UI, API and infotext agree, and what is wrong is refused with its name."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motion.errors import SettingsError
from motion.fields import FIELDS
from motion.settings import (
    BETA_SCHEDULES,
    CONTEXT_SCHEDULES,
    FORMATS,
    FREEINIT_FILTERS,
    FUSE_METHODS,
    SEED_BEHAVIOURS,
    WINDOW_SCOPES,
    MotionSettings,
    field_specs,
)

SETTINGS = st.builds(
    MotionSettings,
    enabled=st.booleans(),
    motion_module=st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp"))),
    num_frames=st.integers(1, 4096),
    fps=st.one_of(
        st.integers(1, 240).map(Fraction),
        st.sampled_from([Fraction(24000, 1001), Fraction(30000, 1001), Fraction(25, 2), Fraction(1, 4)]),
    ),
    loop_count=st.integers(0, 65535),
    formats=st.sets(st.sampled_from(FORMATS), min_size=1).map(lambda chosen: tuple(f for f in FORMATS if f in chosen)),
    motion_scale=st.floats(0, 2),
    seed_behaviour=st.sampled_from(SEED_BEHAVIOURS),
    beta_schedule=st.sampled_from(BETA_SCHEDULES),
    motion_loras=st.lists(st.sampled_from(["<lora:pan:0.8>", "<lora:zoom in:-1.0@0-7>"])).map(" ".join),
    domain_adapter_strength=st.floats(0, 2),
    context_length=st.integers(0, 256),
    context_overlap=st.integers(-1, 255),
    closed_loop=st.booleans(),
    context_schedule=st.sampled_from(CONTEXT_SCHEDULES),
    fuse_method=st.sampled_from(FUSE_METHODS),
    frame_seeds=st.lists(st.integers(0, 2**32 - 1)).map(lambda seeds: " ".join(map(str, seeds))),
    freeinit_iterations=st.integers(1, 10),
    freeinit_filter=st.sampled_from(FREEINIT_FILTERS),
    freeinit_order=st.integers(1, 16),
    freeinit_d_s=st.floats(0.01, 1),
    freeinit_d_t=st.floats(0.01, 1),
    window_scope=st.sampled_from(WINDOW_SCOPES),
    motion_scale_frames=st.sampled_from(["", "1.2", "1, 0.8, 0.6", "0: 1, 0.5 ease-in: 0.3, -1 hold: 1"]),
    motion_start=st.floats(0, 1),
    motion_end=st.floats(0, 1),
)


@given(SETTINGS)
def test_infotext_round_trip(settings):
    assert MotionSettings.from_infotext(settings.to_infotext()) == settings


@given(SETTINGS)
def test_mapping_and_positional_arguments_agree(settings):
    values = {name: getattr(settings, name) for name in field_specs()}
    assert MotionSettings.from_mapping(values) == settings
    expected = settings if settings.enabled else MotionSettings()
    assert MotionSettings.from_arguments(list(values.values())) == expected
    assert MotionSettings.from_arguments([values, "", 3]) == expected


def test_table_and_settings_have_the_same_fields_in_the_same_order():
    assert list(FIELDS) == list(field_specs())
    keys = [spec.infotext for spec in FIELDS.values() if spec.infotext]
    assert len(set(keys)) == len(keys)
    assert [name for name, spec in FIELDS.items() if not spec.infotext] == ["decode_chunk_size", "resume"]


def test_nothing_asked_for_means_off():
    assert MotionSettings.from_arguments([]) == MotionSettings()
    assert MotionSettings().enabled is False


@pytest.mark.parametrize("name", [name for name, spec in field_specs().items() if spec.minimum is not None])
def test_each_bound_is_allowed_and_what_lies_beyond_is_refused(name):
    spec = field_specs()[name]
    for bound, step in ((spec.minimum, -1), (spec.maximum, 1)):
        MotionSettings.from_mapping({name: bound})
        with pytest.raises(SettingsError, match=f"`{name}` must be .* from .* got"):
            MotionSettings.from_mapping({name: bound + step})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_frames": 0}, "`num_frames` must be a whole number from 1 to 4096, got 0"),
        ({"num_frames": 10**9}, "got 1000000000"),
        ({"num_frames": 16.5}, "`num_frames` must be a whole number, got 16.5"),
        ({"num_frames": float("inf")}, "got inf"),
        ({"num_frames": float("nan")}, "got nan"),
        ({"num_frames": "many"}, "got 'many'"),
        ({"num_frames": True}, "got True"),
        ({"num_frames": None}, "got None"),
        ({"num_frames": [16]}, r"got \[16\]"),
        ({"fps": 0}, "`fps` must be frames a second from 0.25 to 240, got 0"),
        ({"fps": "1/0"}, "fraction such as 24000/1001, got '1/0'"),
        ({"fps": float("nan")}, "got nan"),
        ({"fps": True}, "got True"),
        ({"fps": "1e999999999"}, "fraction such as 24000/1001"),
        ({"fps": "-8"}, "from 0.25 to 240, got -8"),
        ({"fps": 10**10}, "fraction such as 24000/1001"),
        ({"motion_scale": "strong"}, "`motion_scale` must be a number"),
        ({"motion_scale": float("nan")}, "got nan"),
        ({"motion_scale": False}, "got False"),
        ({"enabled": "perhaps"}, "`enabled` must be true or false"),
        ({"enabled": 1}, "`enabled` must be true or false"),
        ({"motion_module": 3}, "`motion_module` must be text"),
        ({"formats": []}, "`formats` must be at least one of MP4, GIF, PNG"),
        ({"formats": ["AVI"]}, "`formats` must be one of 'MP4', 'GIF', 'PNG', got 'AVI'"),
        ({"formats": 4}, "`formats` must be a list"),
        ({"formats": {"MP4": 1}}, "`formats` must be a list"),
        ({"seed_behaviour": "random"}, "`seed_behaviour` must be one of"),
        ({"frame_seeds": "seven, 8"}, "`frame_seeds` must be whole numbers such as 7, 7, 8, got 'seven, 8'"),
        ({"frame_seeds": [1.5]}, "`frame_seeds` must be text"),
        ({"freeinit_filter": "sinc"}, "`freeinit_filter` must be one of 'butterworth'"),
        ({"motion_scale_frames": True}, "`motion_scale_frames` must be a number, a list of them or text, got True"),
        ({"motion_scale_frames": [1, "x"]}, r"`motion_scale_frames` must be .*, got \[1, 'x'\]"),
        ({"motion_scale_frames": {"0": 1}}, "`motion_scale_frames` must be a number, a list"),
        ({"window_scope": "frames"}, "`window_scope` must be one of 'auto', 'attention', 'unet', got 'frames'"),
        ({"motion_loras": "pan left"}, "`motion_loras` must be tags such as <lora:pan_left:0.8>, got 'pan left'"),
        ({"motion_loras": [3]}, "`motion_loras` must be text"),
        ({"num_frame": 16}, "Unknown field `num_frame`; .* Did you mean `num_frames`"),
        ({"wibble": 16}, "Unknown field `wibble`.* Remove it"),
        ({3: 16}, "Unknown field `3`"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(SettingsError, match=message) as caught:
        MotionSettings.from_mapping(fields)
    assert vars(caught.value)["status_code"] == 422
    assert vars(caught.value)["detail"] == str(caught.value)


def test_switched_off_nothing_else_matters():
    assert MotionSettings.from_arguments([False, "x", None, ""]) == MotionSettings()
    assert MotionSettings.from_arguments([{"enabled": False, "num_frames": 0}]) == MotionSettings()
    with pytest.raises(SettingsError, match="Unknown field"):
        MotionSettings.from_arguments([{"wibble": 1}])


def test_refuses_too_many_arguments():
    count = len(field_specs())
    with pytest.raises(SettingsError, match=rf"at most {count} arguments, got {count + 1}"):
        MotionSettings.from_arguments([False] * (count + 1))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (8, Fraction(8)),
        ("12.5", Fraction(25, 2)),
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        ("24000/1001", Fraction(24000, 1001)),
        (0.25, Fraction(1, 4)),
        (24, Fraction(24)),
        (24.0, Fraction(24)),
        ("999/1000", Fraction(999, 1000)),
    ],
)
def test_rates_are_exact(value, expected):
    assert MotionSettings.from_mapping({"fps": value}).fps == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, "1.5"),
        ([1, 0.5], "1, 0.5"),
        ("0:  1,\n 8: 0.5\n", "0: 1, 8: 0.5"),
        (None, ""),
        ("0: 1\n8: 2", "0: 1, 8: 2"),
    ],
)
def test_scales_of_frames_become_one_line(value, expected):
    assert MotionSettings.from_mapping({"motion_scale_frames": value}).motion_scale_frames == expected


def test_case_and_spelling_of_choices():
    assert MotionSettings.from_mapping({"formats": "gif, mp4"}).formats == ("MP4", "GIF")
    assert MotionSettings.from_mapping({"formats": ["png"]}).formats == ("PNG",)
    assert MotionSettings.from_mapping({"seed_behaviour": "Per Frame"}).seed_behaviour == "per frame"
