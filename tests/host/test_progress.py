"""What the web UI shows while a clip is sampled: where in a step it is, and how long the pass will take."""

import pytest

from motion.protocols import UNetPart, UNetWindow

LINE = "Motion: 2 windows of 4 frames"


class Clock:
    """Seconds as the test says."""

    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def shown(web_ui, clock):
    """Progress of a pass of four steps."""
    from motion.host.progress import ClipProgress

    web_ui.state.sampling_steps = 4
    web_ui.state.textinfo = LINE
    return ClipProgress(clock)


def part(index, count=4, num_rows=8):
    return UNetPart(index, count, num_rows)


def window(index):
    return UNetWindow(index, 2, (0, 1), (0, 1), 3, 3)


def test_the_time_is_told_from_the_second_step_on(shown, clock, web_ui):
    shown.begin_step(8, (0, 4))
    assert web_ui.state.textinfo == LINE
    clock.now += 30
    shown.begin_step(8, (1, 4))
    assert web_ui.state.textinfo == f"{LINE} · 1:30 min left of 2:00 min"
    web_ui.state.sampling_step = 0
    shown.show_part(part(0))
    shown.show_part(part(2))
    assert (web_ui.state.sampling_step, web_ui.state.textinfo) == (1.5, f"{LINE} · 1:15 min left of 2:00 min")
    shown.show_part(part(3))
    assert web_ui.state.sampling_step == 0  # the web UI's own again, before the call ends
    with shown.shown(window(0)):
        assert web_ui.state.textinfo.startswith("Motion: window 1 of 2 (scope unet) · ")
    assert web_ui.state.textinfo.startswith(LINE)


def test_calls_of_one_step_are_parts_of_it(shown, web_ui):
    shown.begin_step(16, (0, 4))
    seen = []
    for _ in range(2):
        for index in range(3):
            shown.show_part(part(index))
            seen.append(web_ui.state.sampling_step)
        shown.show_part(part(3))
    assert seen == [0, 0.125, 0.25, 0.5, 0.625, 0.75]


def test_another_round_of_steps_and_another_pass_count_from_their_own_first_step(shown, clock, web_ui):
    for step in (0, 1):
        shown.begin_step(8, (step, 2))
        clock.now += 10
    web_ui.state.textinfo = "FreeInit 2/2"
    shown.begin_step(8, (0, 2))
    assert web_ui.state.textinfo == "FreeInit 2/2"
    clock.now += 4
    shown.begin_step(8, (1, 2))
    assert web_ui.state.textinfo == "FreeInit 2/2 · 4 s left of 8 s"
    shown.begin_pass()
    shown.begin_step(8, (0, 2))
    assert web_ui.state.textinfo == "FreeInit 2/2"


def test_a_sampler_that_does_not_say_its_steps_is_not_timed(shown, clock, web_ui):
    for _ in range(2):
        shown.begin_step(8, None)
        clock.now += 10
    assert web_ui.state.textinfo == LINE


@pytest.mark.parametrize("stop", ["interrupt", "skip"])
def test_a_stop_is_answered_at_the_next_part(shown, web_ui, stop):
    from modules.sd_samplers_common import InterruptedException

    shown.begin_step(8, (0, 4))
    shown.show_part(part(0))
    getattr(web_ui.state, stop)()
    with pytest.raises(InterruptedException):
        shown.show_part(part(1))
