"""A session changes a model for exactly as long as its sampler runs."""

from contextlib import contextmanager, nullcontext

import pytest
import torch

from motion.checkpoints.motion_file import MOTION_FAMILIES
from motion.conditioning.motion_strength import MotionStrength
from motion.context.window_scope import peak_bytes
from motion.errors import InjectionError, SettingsError
from motion.injection.beta_schedule import alphas_cumprod
from motion.injection.residency import resident_bytes
from motion.models.motion_module import MotionModel, MotionModuleConfig
from motion.protocols import BetaSchedule, FrameRows, Placement, UNetRoom
from motion.session import MotionSession
from motion.settings import MotionSettings
from tests.networks import FRAMES, assert_same_state, inputs, make_motion, make_unet, state_of

FAMILY = MOTION_FAMILIES["sd15_v2"]


class Host:
    """A host with one model, whose sampler reads `schedule`."""

    name = "test host"

    def __init__(self, unet):
        self.model = unet
        self.schedules = ["its own"]
        self.stopped = False
        self.free_bytes = None
        self.windows = []

    def unet_room(self):
        return UNetRoom(2, 64, self.free_bytes)

    @contextmanager
    def unet_window(self, window):
        self.windows.append((window.frames, window.rows))
        yield

    def unet(self):
        return self.model

    def placement(self):
        return Placement(torch.device("cpu"), torch.float32, torch.float32)

    def reserved_memory(self, num_bytes):
        return nullcontext()

    @contextmanager
    def beta_schedule(self, schedule):
        self.schedules.append(schedule)
        try:
            yield
        finally:
            self.schedules.append("its own")

    def rows_of_call(self, num_rows):
        return FrameRows.contiguous(num_rows, FRAMES)

    def interrupted(self):
        return self.stopped


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture(scope="module")
def motion():
    return make_motion()


def session(host, motion, **fields):
    settings = MotionSettings.from_mapping({"enabled": True, "num_frames": FRAMES, **fields})
    return MotionSession(host, settings, motion, FAMILY)


def test_applies_and_takes_back(unet, motion):
    host, before, plain = Host(unet), state_of(unet), unet(*inputs(FRAMES))
    run = session(host, motion)
    with run.applied():
        assert run.is_active
        assert host.schedules[-1] == FAMILY.beta_schedule
        assert not torch.equal(unet(*inputs(FRAMES)), plain)
    assert not run.is_active
    assert host.schedules[-1] == "its own"
    assert_same_state(before, state_of(unet))
    assert torch.equal(unet(*inputs(FRAMES)), plain)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt()])
def test_takes_back_after_an_error(unet, motion, error):
    host, before = Host(unet), state_of(unet)
    with pytest.raises(type(error)), session(host, motion).applied():
        unet(*inputs(FRAMES))
        raise error
    assert host.schedules[-1] == "its own"
    assert_same_state(before, state_of(unet))


def test_takes_back_when_binding_fails(unet):
    host, before = Host(unet), state_of(unet)
    narrow = MotionModel(MotionModuleConfig((64, 64, 64), (64, 64, 64), None, 8))
    with pytest.raises(InjectionError, match="32 channels there"), session(host, narrow).applied():
        pytest.fail("must not get here")
    assert host.schedules == ["its own", FAMILY.beta_schedule, "its own"]
    assert_same_state(before, state_of(unet))


def test_windows_follow_the_samplers_steps_not_the_unet_calls(unet):
    """Cond and uncond may be calls of their own; a hires pass begins anew."""
    host, other, motion = Host(unet), make_unet(seed=5), make_motion(max_length=2)
    run, calls = session(host, motion, context_overlap=0), []
    with run.applied():
        for _ in range(2):
            run.begin_step()
            calls += [unet(*inputs(FRAMES)), unet(*inputs(FRAMES))]
        host.model = other
        run.rebind()
        run.begin_step()
        hires = other(*inputs(FRAMES))
    assert torch.equal(calls[0], calls[1])
    assert torch.equal(calls[2], calls[3])
    assert (calls[0] - calls[2]).abs().max() > 1e-4
    host.model = other
    run = session(host, motion, context_overlap=0)
    with run.applied():
        run.begin_step()
        assert torch.equal(other(*inputs(FRAMES)), hires)


def test_in_scope_unet_the_host_is_told_each_window(unet):
    host, run_of = Host(unet), {}
    for scope in ("unet", "attention"):
        run = run_of[scope] = session(host, make_motion(max_length=2), context_overlap=0, window_scope=scope)
        assert run.window_scope == scope
        assert run.describe_windows() == f"2 windows of 2 frames, overlap 0 (scope {scope})"
        with run.applied():
            run.begin_step()
            unet(*inputs(2 * FRAMES))
    assert host.windows == [((0, 1), (0, 1, 4, 5)), ((2, 3), (2, 3, 6, 7))]


def test_scope_auto_is_attention_where_memory_suffices(unet):
    host, motion = Host(unet), make_motion(max_length=2)
    assert session(host, motion).window_scope == "attention"
    host.free_bytes = resident_bytes(motion, host.placement()) + peak_bytes(2 * FRAMES, 64, 32, 4)
    assert session(host, motion).window_scope == "attention"
    host.free_bytes -= 1
    run = session(host, motion)
    assert (run.window_scope, run.describe_windows()) == ("unet", "3 windows of 2 frames, overlap 1 (scope unet)")
    assert "all frames at once would take about" in run.scope_reason
    assert session(host, motion, window_scope="attention").window_scope == "attention"
    assert session(host, make_motion(max_length=FRAMES)).window_scope == "auto"  # one window, so that it means nothing


def test_refuses_windows_that_the_module_can_not_take(unet, motion):
    with pytest.raises(SettingsError, match="`context_length` must be at most 8 with this motion module, got 9"):
        session(Host(unet), motion, context_length=9)


def test_sampling_without_a_unet_call_is_an_error(unet, motion):
    host = Host(unet)
    with pytest.raises(InjectionError, match="UNet at least once, it never did"), session(host, motion).applied():
        pass
    host.stopped = True
    with session(host, motion).applied():
        pass


def test_scale_zero_changes_nothing(unet, motion):
    host, before = Host(unet), state_of(unet)
    for still in ({"motion_scale": 0}, {"motion_scale_frames": "0"}, {"motion_scale_frames": "0, 0, 0, 0"}):
        with session(host, motion, **still).applied():
            assert_same_state(before, state_of(unet))
    assert host.schedules == ["its own"]


def test_motion_runs_in_the_steps_of_its_range_only(unet, motion):
    host, before, plain = Host(unet), state_of(unet), unet(*inputs(FRAMES))
    run = session(host, motion, motion_start=0.25, motion_end=0.75)
    for _ in range(2):  # a second pass, or a second sampling of FreeInit, counts its own steps
        with run.applied():
            steps = []
            for step in range(4):
                run.begin_step((step, 4))
                steps.append(unet(*inputs(FRAMES)))
        with session(host, motion).applied():
            moving = unet(*inputs(FRAMES))
        for result, expected in zip(steps, (plain, moving, moving, plain), strict=True):
            assert torch.equal(result, expected)
    assert_same_state(before, state_of(unet))
    assert host.schedules[-1] == "its own"


def test_a_range_needs_to_know_the_step_and_to_have_one(unet, motion):
    host, before = Host(unet), state_of(unet)
    for step, error, message in (
        (None, InjectionError, "this sampler doesn't say"),
        ((0, 3), SettingsError, "got 0.5 to 0.6, which is none of 3 steps"),
    ):
        run = session(host, motion, motion_start=0.5, motion_end=0.6)
        with pytest.raises(error, match=message), run.applied():
            run.begin_step(step)
            unet(*inputs(FRAMES))
        assert_same_state(before, state_of(unet))


def test_scale_of_each_frame_is_a_product(unet, motion):
    host, results = Host(unet), []
    fields = {"motion_scale": 0.5, "motion_scale_frames": "0: 2, -1: 0.5"}
    for strength in (None, MotionStrength((1.0, 0.75, 0.5, 0.25))):
        settings = MotionSettings.from_mapping({"enabled": True, "num_frames": FRAMES, **fields})
        with MotionSession(host, settings, motion, FAMILY, strength=strength).applied():
            results.append(unet(*inputs(FRAMES)))
    assert torch.equal(*results)


def test_hires_pass_binds_to_the_model_then_loaded(unet, motion):
    other = make_unet(seed=5)
    host, states = Host(unet), (state_of(unet), state_of(other))
    run = session(host, motion)
    with run.applied():
        unet(*inputs(FRAMES))
        host.model = other
        run.rebind()
        assert_same_state(states[0], state_of(unet))
        changed = other(*inputs(FRAMES))
    assert_same_state(states[1], state_of(other))
    assert not torch.equal(changed, other(*inputs(FRAMES)))


def test_one_session_runs_once_at_a_time(unet, motion):
    run = session(Host(unet), motion)
    with run.applied():
        unet(*inputs(FRAMES))
        with pytest.raises(InjectionError, match="already being sampled"), run.applied():
            pytest.fail("must not get here")
        assert run.is_active


@pytest.mark.parametrize(
    ("schedule", "sigma_max"), [(BetaSchedule("linear"), 25.1), (BetaSchedule("scaled_linear"), 14.6)]
)
def test_schedules(schedule, sigma_max):
    """Largest sigmas as users know them: 14.6 for stills, 25.1 with an SD1.5 motion module (hosts.md)."""
    table = alphas_cumprod(schedule)
    assert table.shape == (1000,)
    assert (table.diff() < 0).all()
    assert ((1 - table[-1]) / table[-1]).sqrt().item() == pytest.approx(sigma_max, abs=0.05)


def test_unknown_schedule():
    with pytest.raises(ValueError, match="kind must be"):
        alphas_cumprod(BetaSchedule("cosine"))
