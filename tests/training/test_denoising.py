"""The objective: diffusers' scheduler says what the UNet must see, and what each error weighs."""

from __future__ import annotations

import functools
from contextlib import nullcontext

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from torch import nn

from motion.errors import SettingsError
from motion.protocols import BetaSchedule
from motion.training.denoising import SD15_SCHEDULE, DenoisingSettings, DenoisingTask, Stage
from motion.training.latent_bank import LatentBank
from motion.training.randomness import StepRandom
from motion.training.text import CachedContexts
from tests.training.tiny_tasks import CAPTIONS, make_contexts

COUNT, FRAMES = 4, 3
LINEAR = BetaSchedule("linear")


class Recorder(nn.Module):
    """In the UNet's place: keeps what it is given, and predicts zero or what it is told."""

    def __init__(self, answer=None):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, x, timesteps, context):
        self.seen = x.detach(), timesteps, context.detach()
        return self.weight + (torch.zeros_like(x) if self.answer is None else self.answer(x, timesteps))


@functools.cache
def known_contexts():
    return CachedContexts(make_contexts(), ["", *CAPTIONS])


def make_task(clean, network=None, **settings):
    network = network or Recorder()
    bank = LatentBank(clean, tuple((CAPTIONS[index % 3],) for index in range(len(clean))))
    stage = Stage("test", dict(network.named_parameters()), nullcontext, lambda: None, lambda folder: [], {"rank": 3})
    return DenoisingTask(network, known_contexts(), bank, DenoisingSettings(COUNT, **settings), stage), network


def scheduler(kind="scaled_linear"):
    return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule=kind)


def run(clean, step=0, network=None, **settings):
    """(loss, noisy `b f c h w`, timesteps `b f`, contexts `b f n d`) of one step."""
    task, network = make_task(clean, network, **settings)
    loss = task.loss(StepRandom.of(0, step))
    return loss.item(), *(tensor.reshape(-1, FRAMES, *tensor.shape[1:]) for tensor in network.seen)


def clips(value=None, count=COUNT):
    """Clips that are all alike, so that it does not matter which are drawn."""
    if value is not None:
        return torch.full((count, FRAMES, 4, 4, 4), value)
    return torch.randn(FRAMES, 4, 4, 4, generator=torch.Generator().manual_seed(0)).expand(count, -1, -1, -1, -1)


def noise_of(step, **settings):
    """The step's noise, found from what is seen when there is nothing else."""
    _, noisy, timesteps, _ = run(clips(0.0), step, **settings)
    share = scheduler().alphas_cumprod[timesteps[:, 0]]
    return noisy / (1 - share).sqrt()[:, None, None, None, None]


@pytest.mark.parametrize("step", range(3))
def test_latents_are_noised_as_diffusers_does(step):
    _, noisy, timesteps, _ = run(clips(), step)
    noise = noise_of(step)
    expected = scheduler().add_noise(clips(), noise, timesteps[:, 0])
    torch.testing.assert_close(noisy, expected, rtol=1e-4, atol=1e-5)
    assert abs(noise.std().item() - 1) < 0.1
    flat = noise.reshape(COUNT * FRAMES, -1)
    assert len({row[0].item() for row in flat}) == COUNT * FRAMES  # every frame has noise of its own


def test_loss_is_the_error_of_the_noise():
    def perfect(x, timesteps):
        return x / (1 - scheduler().alphas_cumprod[timesteps]).sqrt()[:, None, None, None]

    assert run(clips(0.0), network=Recorder(perfect))[0] < 1e-9
    assert run(clips(0.0), min_snr_gamma=0.0)[0] == pytest.approx(noise_of(0).square().mean().item(), rel=1e-4)


@pytest.mark.parametrize("gamma", [5.0, 1.0, 0.01])
def test_errors_are_weighed_by_min_snr(gamma):
    loss, _, timesteps, _ = run(clips(), 1, min_snr_gamma=gamma)
    snr = compute_snr(scheduler(), timesteps[:, 0])
    weights = torch.minimum(snr, torch.full_like(snr, gamma)) / snr
    assert weights.min() < 0.9
    errors = noise_of(1).square().mean(dim=(1, 2, 3, 4))
    assert loss == pytest.approx((weights * errors).mean().item(), rel=1e-4)


@pytest.mark.parametrize("share", [1.0, 0.25])
def test_errors_are_weighed_as_those_of_the_velocity_with_a_floor(share):
    loss, _, timesteps, _ = run(clips(), 1, snr_floor=0.05, velocity_share=share)
    weights = 1 + share / (compute_snr(scheduler(), timesteps[:, 0]) + 0.05)
    assert weights.max() > (1 + 3 * share) * weights.min()
    errors = noise_of(1).square().mean(dim=(1, 2, 3, 4))
    assert loss == pytest.approx((weights * errors).mean().item(), rel=1e-4)


def test_timesteps_cover_the_slices_of_the_schedule():
    found = []
    for step in range(60):
        _, _, timesteps, _ = run(clips(0.0), step)
        assert (timesteps == timesteps[:, :1]).all()  # the frames of a clip share one
        found.append(timesteps[:, 0])
        assert sorted((timesteps[:, 0] // 250).tolist()) == [0, 1, 2, 3]
    every = torch.stack(found)
    assert every.dtype == torch.int64
    assert every.min() >= 0
    assert every.max() <= 999
    assert len(set((every // 50).flatten().tolist())) == 20
    assert {row.argsort()[0].item() for row in every} == {0, 1, 2, 3}  # in any order


def test_a_bias_makes_noisy_timesteps_more_frequent():
    drawn = torch.cat([run(clips(0.0), step, noise_bias=2.0)[2][:, 0] for step in range(60)])
    assert drawn.min() < 250
    assert drawn.max() <= 999
    assert 0.42 < (drawn >= 750).float().mean() < 0.58  # 1 - (1 - u)^2 >= 0.75 for half of all u


def run_both_ways(clean, steps):
    """(noisy clips, noisy clips of the same step without, weights) of some steps."""
    told = []
    for step in range(steps):
        task, network = make_task(clean)
        stage = Stage("branches", task.parameters(), nullcontext, lambda: None, lambda f: [], {}, told.append)
        bank = LatentBank(clean, ((CAPTIONS[0],),) * len(clean))
        both = DenoisingTask(network, known_contexts(), bank, DenoisingSettings(COUNT, both_ways=True), stage)
        both.loss(StepRandom.of(0, step))
        seen = [tensor.reshape(-1, FRAMES, *tensor.shape[1:]) for tensor in network.seen]
        yield (*seen[:2], told[-1])


def test_every_other_clip_is_played_backwards_and_its_branches_count_as_minus_one():
    clean, seen = clips(), set()
    for noisy, timesteps, weights in run_both_ways(clean, 12):
        assert sorted(weights.tolist()) == [-1.0, -1.0, 1.0, 1.0]
        share = scheduler().alphas_cumprod[timesteps[:, 0]].sqrt()[:, None, None, None, None]
        for row, weight in enumerate(weights.tolist()):
            # The noise doesn't know which way the clip goes: it tells which of the two fits.
            forwards, backwards = (
                (noisy[row] - share[row] * one).square().mean().item() for one in (clean[0], clean[0].flip(0))
            )
            if share[row] > 0.5:
                assert (forwards < backwards) == (weight > 0)
                seen.add(weight)
        seen.add(("first", weights[0].item()))
    assert seen == {1.0, -1.0, ("first", 1.0), ("first", -1.0)}


def test_a_single_clip_goes_either_way():
    stage = Stage("branches", {}, nullcontext, lambda: None, lambda f: [], {}, (told := []).append)
    bank = LatentBank(clips(count=1), ((CAPTIONS[0],),))
    task = DenoisingTask(Recorder(), known_contexts(), bank, DenoisingSettings(1, both_ways=True), stage)
    for step in range(12):
        task.loss(StepRandom.of(0, step))
    assert {weights.item() for weights in told} == {1.0, -1.0}


@pytest.mark.parametrize("name", ["both_ways", "graded"])
def test_weights_are_refused_where_there_are_no_branches(name):
    with pytest.raises(SettingsError, match=rf"`{name}` is for low-rank branches, the stage trains a test"):
        make_task(clips(), **{name: True})


def test_graded_stills_are_mixed_at_the_strength_at_which_the_branches_count():
    """Black and white pairs: what is seen tells the mixture, noise aside."""
    told, pairs = [], torch.tensor([-2.0, 2.0])[None, :, None, None, None].expand(COUNT, 2, 4, 32, 32)
    network = Recorder()
    stage = Stage("branches", {}, nullcontext, lambda: None, lambda f: [], {}, told.append)
    bank = LatentBank(pairs, ((CAPTIONS[0],),) * COUNT)
    task = DenoisingTask(network, known_contexts(), bank, DenoisingSettings(COUNT, graded=True), stage)
    for step in range(20):
        task.loss(StepRandom.of(0, step))
        noisy, timesteps, _ = network.seen
        assert noisy.shape == (COUNT, 4, 32, 32)
        share = scheduler().alphas_cumprod[timesteps]
        for found, weight, part in zip(noisy.mean(dim=(1, 2, 3)), told[-1], share, strict=True):
            if part > 0.5:
                assert (found / part.sqrt()).item() == pytest.approx(4 * weight.item() - 2, abs=0.2)
    strengths = torch.stack(told)
    assert strengths.min() < 0.2
    assert strengths.max() <= 1
    assert strengths.mean().item() == pytest.approx(2 / 3, abs=0.1)


def test_contexts_are_those_of_the_captions_and_some_are_left_out():
    contexts, seen = known_contexts(), []
    rows = {caption: contexts.contexts([caption])[0] for caption in ("", *CAPTIONS)}
    for step in range(60):
        _, _, _, given = run(clips(0.0, count=6), step, unconditional_share=0.25)
        assert torch.equal(given, given[:, :1].expand_as(given))
        seen += [next(c for c, row in rows.items() if torch.allclose(row, clip[0], atol=1e-5)) for clip in given]
    assert seen.count("") / len(seen) == pytest.approx(0.25, abs=0.08)
    assert set(seen) == {"", *CAPTIONS}


def test_clip_and_caption_stay_together():
    """Each clip is a constant that tells its index; a large one, so that it is seen through the noise."""
    constants = torch.arange(1.0, 7.0) * 1e4
    contexts = known_contexts()
    for step in range(4):
        clean = constants[:, None, None, None, None].expand(6, FRAMES, 4, 4, 4)
        _, noisy, timesteps, given = run(clean, step, unconditional_share=0.0)
        shares = scheduler().alphas_cumprod[timesteps[:, 0]].sqrt()
        index = (noisy.mean(dim=(1, 2, 3, 4)) / shares / 1e4).round().long() - 1
        expected = contexts.contexts([CAPTIONS[i % 3] for i in index.tolist()])
        torch.testing.assert_close(given[:, 0], expected, rtol=1e-4, atol=1e-5)


def test_schedules_are_mixed_clip_by_clip():
    tables = [scheduler(kind).alphas_cumprod for kind in ("scaled_linear", "linear")]
    used = set()
    for step in range(8):
        _, noisy, timesteps, _ = run(clips(1e5), step, schedules=(SD15_SCHEDULE, LINEAR))
        shares = (noisy.mean(dim=(1, 2, 3, 4)) / 1e5).square()
        for share, timestep in zip(shares, timesteps[:, 0], strict=True):
            away = [abs(share / table[timestep] - 1).item() for table in tables]
            assert min(away) < 1e-2
            if max(away) > 5e-2:
                used.add(away.index(min(away)))
    assert used == {0, 1}


def test_gradient_reaches_the_stage_and_facts_tell_runs_apart():
    task, network = make_task(clips())
    task.loss(StepRandom.of(0, 0)).backward()
    assert network.weight.grad.abs().item() > 0
    facts = task.describe()
    assert (facts["stage"], facts["rank"], facts["clips"]) == ("test", 3, [COUNT, FRAMES, 4, 4, 4])
    other, _ = make_task(clips(), schedules=(LINEAR,))
    assert other.describe()["schedules"] != facts["schedules"]
