"""What a request says of windows: defaults from the module, and one message for what doesn't go together."""

import pytest

from motion.context.plan import WindowPlan
from motion.context.schedules import Context
from motion.errors import SettingsError
from motion.settings import MotionSettings


def plan(trained=16, longest=32, **fields):
    settings = MotionSettings.from_mapping({"enabled": True, "num_frames": 48, **fields})
    return WindowPlan.resolve(settings, trained, longest)


@pytest.mark.parametrize(
    ("fields", "trained", "context"),
    [
        ({}, 16, Context(16, 4)),
        ({}, 8, Context(8, 2)),
        ({}, 64, Context(64, 16)),
        ({}, 3, Context(3, 1)),
        ({}, 1, Context(1, 0)),
        ({"context_length": 24}, 16, Context(24, 6)),
        ({"context_length": 2, "closed_loop": True}, 16, Context(2, 1, closed_loop=True)),
        ({"context_overlap": 0}, 16, Context(16, 0)),
        ({"context_schedule": "views"}, 16, Context(16, 12)),
        ({"context_stride": 3}, 16, Context(16, 4, 3)),
    ],
)
def test_defaults_come_from_the_modules_training(fields, trained, context):
    assert plan(trained, 64, **fields).context == context


def test_windows_change_from_step_to_step():
    uniform, static = plan(), plan(context_schedule="static")
    assert uniform.windows(0) == static.windows(0) == static.windows(1) != uniform.windows(1)
    assert uniform.windows(0).num_frames == 48
    assert str(uniform) == "4 windows of 16 frames, overlap 4"
    assert str(plan(closed_loop=True)) == "4 windows of 16 frames, overlap 4, a closed loop"


@pytest.mark.parametrize("num_frames", [1, 15, 16])
def test_a_clip_that_fits_has_no_windows(num_frames):
    short = plan(num_frames=num_frames, context_schedule="looped", context_stride=2)
    assert [short.windows(step) for step in range(3)] == [None] * 3
    assert str(short) == "one window"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"context_length": 33},
            "`context_length` must be at most 32 with this motion module, got 33. Lower it, or set 0 for the 16 frames",
        ),
        (
            {"context_overlap": 16},
            r"`context_overlap` must be smaller than `context_length` \(16\), got 16. Lower the overlap or lengthen",
        ),
        ({"context_length": 4, "context_overlap": 7}, r"smaller than `context_length` \(4\), got 7"),
        (
            {"context_stride": 2, "context_schedule": "static"},
            "`context_stride` must be 1 with the schedule 'static', got 2. Choose 'uniform' or 'looped'",
        ),
        ({"closed_loop": True, "context_schedule": "batched"}, "`closed_loop` must be off with the schedule 'batched'"),
        ({"closed_loop": True, "context_overlap": 0}, "`context_overlap` must be at least 1 in a closed loop, got 0"),
    ],
)
def test_refuses(fields, message):
    with pytest.raises(SettingsError, match=message):
        plan(**fields)
