"""FreeInit in the embedded host: what each iteration starts from, what is counted, what is left behind."""

import itertools
from contextlib import contextmanager

import pytest
import torch
from PIL import Image

from motion.errors import InjectionError
from motion.injection.beta_schedule import alphas_cumprod
from motion.noise.freeinit import FreeInit
from motion.protocols import BetaSchedule
from motion.standalone import rng, shared
from motion.standalone.samplers.kdiffusion import KDiffusionSampler
from motion.standalone.samplers.timesteps import CompVisSampler
from motion.standalone.script_base import Script
from tests.host.conftest import FRAMES
from tests.networks import assert_same_state, state_of
from tests.standalone import tiny_host

ASKED = {"freeinit_iterations": 3, "freeinit_d_s": 0.5, "freeinit_d_t": 0.5}
FREE_INIT = FreeInit(3, "butterworth", 0.5, 0.5, 4, coarse_to_fine=False)
SEEDS = range(7, 7 + FRAMES)
STEPS = 4
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
FROM_PICTURE = {
    "make": tiny_host.img2img,
    "init_images": [Image.new("RGB", (32, 32), "orange")],
    "denoising_strength": 0.6,
}


def frames_of(clip):
    return [image.tobytes() for image in clip.images if not isinstance(image, str)]


@pytest.fixture
def runs(monkeypatch):
    """(latents that sampling starts from or None, noise, result, σ or timestep of the first step) of each sampling."""
    runs = []
    for kind, name in itertools.product((KDiffusionSampler, CompVisSampler), ("sample", "sample_img2img")):
        monkeypatch.setattr(kind, name, recording(getattr(kind, name), runs, with_picture=name != "sample"))
    return runs


def recording(method, runs, *, with_picture):
    def sample(self, p, x, *args, **kwargs):
        levels = []
        handle = self.model_wrap_cfg.register_forward_pre_hook(lambda _, given: levels.append(float(given[1][0])))
        result = method(self, p, x, *args, **kwargs)
        handle.remove()
        picture, noise = (x, args[0]) if with_picture else (None, x)
        runs.append((picture, noise.clone(), result.clone(), levels))
        return result

    return sample


def drawn(*, times):
    """The host's noises of the clip's seeds, one after another."""
    source = rng.ImageRNG((4, 4, 4), list(SEEDS))
    return [source.next() for _ in range(times)]


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_each_iteration_starts_from_the_one_before_and_fresh_noise(studio, runs, sampler):
    studio.clip(ASKED, steps=STEPS, sampler_name=sampler)
    noises = drawn(times=3)
    alpha = float(alphas_cumprod(BetaSchedule("linear"))[-1])  # the motion module's schedule
    assert len(runs) == 3
    assert torch.equal(runs[0][1], noises[0])
    for (_, _, result, _), (_, noise, _, _), fresh in zip(runs, runs[1:], noises[1:], strict=False):
        torch.testing.assert_close(noise, FREE_INIT.next_noise(result, noises[0], fresh, alpha), atol=1e-5, rtol=0)
        assert noise.std() == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_from_a_picture(studio, runs, sampler):
    studio.clip(ASKED, steps=10, sampler_name=sampler, initial_noise_multiplier=1.1, **FROM_PICTURE)
    noises = [noise * 1.1 for noise in drawn(times=3)]
    table = alphas_cumprod(BetaSchedule("linear"))
    assert len(runs) == 3
    sigma = runs[0][3][0]
    if sampler == "DDIM":  # which, as in the web UI, begins one step below the noise that it is given
        alpha = table[int(sigma) + 1000 // 10]
        sigma = float(((1 - alpha) / alpha).sqrt())
    for (picture, _, result, _), (_, noise, _, _), fresh in zip(runs, runs[1:], noises[1:], strict=False):
        expected = FREE_INIT.next_noise_on_picture(result, noises[0], fresh, picture, sigma)
        torch.testing.assert_close(noise, expected, atol=1e-3, rtol=0)


def test_one_iteration_is_the_clip_without(studio):
    assert frames_of(studio.clip({"freeinit_iterations": 1})) == frames_of(studio.clip())
    assert frames_of(studio.clip(ASKED)) != frames_of(studio.clip())


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M Karras", "LCM"])
def test_other_samplers_and_the_same_clip_each_time(studio, sampler):
    clips = [frames_of(studio.clip(ASKED, sampler_name=sampler)) for _ in range(2)]
    assert clips[0] == clips[1]


def test_each_of_several_clips_is_what_it_is_alone(studio):
    both = studio.clip(ASKED, n_iter=2)
    alone = [studio.clip(ASKED, seed=seed) for seed in (7, 7 + FRAMES)]
    assert frames_of(both) == frames_of(alone[0]) + frames_of(alone[1])


def test_coarse_to_fine(studio, runs):
    studio.clip({**ASKED, "freeinit_coarse_to_fine": True}, steps=9)
    assert [len(levels) for _, _, _, levels in runs] == [3, 6, 9]
    runs.clear()
    clip = studio.clip({**ASKED, "freeinit_coarse_to_fine": True}, steps=10, **FROM_PICTURE)
    assert [len(levels) for _, _, _, levels in runs] == [2, 4, 7]  # of 3, 6 and 10 steps, 0.6 and one
    assert "Steps: 10," in clip.infotexts[0]


def test_shared_noise_stays_shared(studio, runs):
    studio.clip({**ASKED, "num_frames": 8, "context_length": 4, "seed_behaviour": "repeated"})
    for _, noise, _, _ in runs[:1]:
        assert torch.equal(noise[:4], noise[4:])
    studio.clip({**ASKED, "seed_behaviour": "same for all frames", "motion_scale": 0})
    for _, noise, _, _ in runs[3:]:
        torch.testing.assert_close(noise, noise[:1].expand_as(noise), atol=1e-5, rtol=0)


def test_the_hires_pass_runs_once_on_the_last_iteration(studio, runs):
    studio.clip(ASKED, steps=STEPS, hr_second_pass_steps=2, **HIRES)
    assert [noise.shape[-1] for _, noise, _, _ in runs] == [4, 4, 4, 8]
    assert len(runs[-1][3]) == 2


@contextmanager
def in_call(unet, number, act):
    """Run `act` before the UNet call `number`, counted from 1."""
    count = itertools.count(1)
    handle = unet.register_forward_pre_hook(lambda *args: act() if next(count) == number else None)
    try:
        yield count
    finally:
        handle.remove()


def assert_untouched(p, before, sampler):
    assert_same_state(before, state_of(p.sd_model.model.diffusion_model))
    assert not {"sample", "sample_img2img"} & set(vars(sampler))
    assert p.steps == STEPS
    assert shared.state.textinfo is None


class Watcher(Script):
    """Keeps the samplers that a request is sampled with."""

    def __init__(self):
        super().__init__()
        self.samplers = []

    def title(self):
        return "Watcher"

    def process_before_every_sampling(self, p, *args, **kwargs):
        self.samplers.append(p.sampler)


@pytest.mark.parametrize("way", ["plain", "picture", "hires"])
@pytest.mark.parametrize("end", ["returns", "raises in the first", "raises in the second", "is interrupted"])
def test_nothing_is_left_behind(studio, way, end):
    unet, plain, watcher = studio.model.model.diffusion_model, studio.still(), Watcher()
    before, schedule = state_of(unet), studio.model.alphas_cumprod
    fields = {"plain": {}, "picture": {**FROM_PICTURE, "denoising_strength": 0.99}, "hires": HIRES}[way]
    p = studio.job({**ASKED, "freeinit_coarse_to_fine": True}, neighbours=[watcher], steps=STEPS, **job_fields(fields))

    def fail():
        raise torch.OutOfMemoryError("no memory left")

    if end == "returns":
        tiny_host.run(p)
    elif end == "is interrupted":
        with in_call(unet, 2, shared.state.interrupt):
            tiny_host.run(p)
    else:
        with in_call(unet, 1 if end.endswith("first") else 2, fail), pytest.raises(torch.OutOfMemoryError):
            tiny_host.run(p)
    assert watcher.samplers
    for sampler in watcher.samplers:
        assert_untouched(p, before, sampler)
    assert studio.model.alphas_cumprod is schedule
    assert studio.still() == plain


def job_fields(fields):
    return {"make": tiny_host.txt2img, **fields}


@pytest.mark.parametrize(("call", "expected"), [(STEPS, STEPS), (STEPS + 2, STEPS + 2), (2, 2)])
def test_interrupt_ends_the_clip_and_keeps_its_frames(studio, runs, call, expected):
    """In the last step of an iteration, after which the next one would begin, and inside one."""
    with in_call(studio.model.model.diffusion_model, call, shared.state.interrupt) as count:
        clip = studio.clip(ASKED, steps=STEPS)
    assert next(count) - 1 == expected
    assert len(frames_of(clip)) == FRAMES
    assert len(runs) == (expected + STEPS - 1) // STEPS


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize("hires", [{}, HIRES], ids=["plain", "hires"])
def test_progress_counts_all_iterations(studio, clips, hires):
    seen, told, state = [], [], shared.state
    handle = studio.model.model.diffusion_model.register_forward_pre_hook(
        lambda *args: seen.append((state.job_no + state.sampling_step / state.sampling_steps) / state.job_count)
    )
    shared.total_tqdm.listener = lambda done, total: told.append((done, total))
    studio.clip(ASKED, steps=STEPS, n_iter=clips, **hires)
    handle.remove()
    shared.total_tqdm.listener = None
    passes = 4 if hires else 3
    assert seen == sorted(seen)
    assert len({round(place * passes * clips) for place in seen}) >= passes * clips
    assert 1 - 1 / (passes * clips) <= seen[-1] <= 1
    assert told[-1][0] == told[-1][1] == STEPS * clips * passes


def test_the_state_says_which_iteration_runs(studio):
    seen = []
    handle = studio.model.model.diffusion_model.register_forward_pre_hook(
        lambda *args: seen.append(shared.state.textinfo)
    )
    studio.clip(ASKED, steps=1)
    handle.remove()
    assert seen == ["FreeInit 1/3", "FreeInit 2/3", "FreeInit 3/3"]


def test_windows_begin_anew_in_each_iteration(studio, monkeypatch):
    from motion.context.plan import WindowPlan

    steps, windows = [], WindowPlan.windows
    monkeypatch.setattr(WindowPlan, "windows", lambda self, step: steps.append(step) or windows(self, step))
    studio.clip({**ASKED, "num_frames": 6, "context_length": 4, "context_overlap": 2}, steps=3)
    assert [step for step, _ in itertools.groupby(steps)] == [0, 1, 2] * 3


def test_a_sampler_put_in_the_place_of_ours_is_refused(studio):
    class Thief(Script):
        def title(self):
            return "Thief"

        def process_before_every_sampling(self, p, *args, **kwargs):
            from motion.standalone import samplers

            p.sampler = samplers.create_sampler("Euler", p.sd_model)

    with pytest.raises(InjectionError, match="FreeInit must run this request's sampler"):
        studio.clip(ASKED, neighbours=[Thief()])


def test_a_neighbours_wrapper_around_the_sampler_stays_and_calls_us(studio, runs):
    class Wrapper(Script):
        calls = 0

        def title(self):
            return "Wrapper"

        def process_before_every_sampling(self, p, *args, **kwargs):
            self.sampler, sample = p.sampler, p.sampler.sample

            def wrapped(*args, **kwargs):
                Wrapper.calls += 1
                return sample(*args, **kwargs)

            p.sampler.sample = self.wrapped = wrapped

    neighbour = Wrapper()
    studio.clip(ASKED, neighbours=[neighbour])
    assert Wrapper.calls == 1
    assert len(runs) == 3
    assert vars(neighbour.sampler)["sample"] is neighbour.wrapped
