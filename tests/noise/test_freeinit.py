"""FreeInit's arithmetic: filters, mixing, noising back; against the original's numbers and by what must hold."""

import pytest
import torch
from einops import rearrange
from hypothesis import given, settings
from hypothesis import strategies as st

from motion.injection.beta_schedule import alphas_cumprod
from motion.noise.freeinit import FreeInit, diffused, start_sigma
from motion.noise.frequencies import low_pass, mixed
from motion.protocols import BetaSchedule
from tests.goldens import read_golden

KINDS = ("butterworth", "gaussian", "ideal", "box")
STOPS = ((0.25, 0.25), (0.5, 0.25), (0.3, 0.7), (0.0, 0.25))
SHAPE = (8, 6, 10)

shapes = st.tuples(st.integers(1, 20), st.integers(1, 16), st.integers(1, 16))
stops = st.floats(0.01, 1)


@pytest.fixture(scope="module")
def golden():
    return read_golden("freeinit")


def frames_first(latents):
    return rearrange(latents, "1 c f h w -> f c h w")


def normal(shape, seed=0):
    frames, height, width = shape
    return torch.randn(frames, 4, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", STOPS)
def test_filters_are_the_originals(golden, kind, stop):
    expected = golden[f"out.filter_{kind}_{stop[0]}_{stop[1]}"]
    torch.testing.assert_close(low_pass(kind, SHAPE, d_s=stop[0], d_t=stop[1]), expected, atol=1e-6, rtol=0)


def test_order_of_butterworth(golden):
    expected = golden["out.filter_butterworth_n2_0.25_0.25"]
    torch.testing.assert_close(low_pass("butterworth", SHAPE, order=2), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_mixes_are_the_originals(golden, kind):
    low, high = frames_first(golden["in.z_T"]), frames_first(golden["in.z_rand"])
    expected = frames_first(golden[f"out.mixed_{kind}"])
    torch.testing.assert_close(mixed(low, high, low_pass(kind, SHAPE)), expected, atol=2e-6, rtol=0)


def test_the_whole_way_is_the_originals(golden):
    alpha = float(alphas_cumprod(BetaSchedule("linear"))[-1])
    samples, first, fresh = (frames_first(golden[f"in.{name}"]) for name in ("z0", "initial_noise", "z_rand"))
    z_t = diffused(samples, first, alpha)
    torch.testing.assert_close(z_t, frames_first(golden["out.reinit_z_T"]), atol=1e-5, rtol=0)
    free_init = FreeInit(3, "butterworth", 0.25, 0.25, 4, coarse_to_fine=False)
    noise = free_init.next_noise(samples, first, fresh, alpha)
    torch.testing.assert_close(noise, frames_first(golden["out.reinit_butterworth"]), atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.sampled_from(KINDS), shapes, stops, stops, st.integers(1, 8))
def test_low_and_high_pass_add_up_to_what_was_there(kind, shape, d_s, d_t, order):
    mask = low_pass(kind, shape, d_s=d_s, d_t=d_t, order=order)
    x, zero = normal(shape), torch.zeros(shape[0], 4, *shape[1:])
    assert mask.min() >= 0
    assert mask.max() <= 1
    assert torch.equal(mixed(x, x, mask), x)
    torch.testing.assert_close(mixed(x, zero, mask) + mixed(zero, x, mask), x, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.sampled_from(KINDS), shapes, stops, stops)
def test_a_still_picture_without_detail_is_kept(kind, shape, d_s, d_t):
    """Frequency 0 is of the low ones, also along axes of odd length."""
    constant = torch.ones(shape[0], 4, *shape[1:])
    mask = low_pass(kind, shape, d_s=d_s, d_t=d_t)
    torch.testing.assert_close(mixed(constant, 0 * constant, mask), constant, atol=1e-5, rtol=0)


@settings(deadline=None)
@given(st.sampled_from(("butterworth", "gaussian", "ideal")), shapes, stops, stops)
def test_filters_treat_both_directions_alike(kind, shape, d_s, d_t):
    """So that filtered latents are real: nothing is lost with an imaginary part."""
    mask = torch.fft.ifftshift(low_pass(kind, shape, d_s=d_s, d_t=d_t))
    mirrored = mask.flip((0, 1, 2)).roll((1, 1, 1), (0, 1, 2))
    torch.testing.assert_close(mask, mirrored, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [0.125, 0.25, 0.5])
def test_variance_stays_near_one(kind, d):
    """Of two independent unit noises, M and 1 - M of the spectrum leave M² + (1 - M)² of the variance."""
    shape = (16, 32, 32)
    mask = low_pass(kind, shape, d_s=d, d_t=d)
    result = mixed(normal(shape, 1), normal(shape, 2), mask)
    assert result.mean().abs() < 0.02
    expected = (mask**2 + (1 - mask) ** 2).mean()
    if kind != "box":  # whose outer faces count half on either side
        assert result.var().item() == pytest.approx(expected.item(), abs=0.01)
    if (kind, d) != ("gaussian", 0.5):
        assert result.var().item() == pytest.approx(1, abs=0.07)


def test_high_frequencies_are_fresh_and_low_ones_are_not():
    shape = (16, 8, 8)
    free_init = FreeInit(3, "ideal", 0.05, 0.05, 4, coarse_to_fine=False)
    samples, first = normal(shape, 1), normal(shape, 2)
    one, other = (free_init.next_noise(samples, first, normal(shape, seed), 0.5) for seed in (3, 4))
    keep = torch.fft.ifftshift(low_pass("ideal", shape, d_s=0.05, d_t=0.05))[:, None].bool().expand_as(first)
    spectra = [torch.fft.fftn(noise, dim=(0, 2, 3)) for noise in (one, other, diffused(samples, first, 0.5))]
    torch.testing.assert_close(spectra[0][keep], spectra[2][keep], atol=1e-3, rtol=0)
    torch.testing.assert_close(spectra[1][keep], spectra[2][keep], atol=1e-3, rtol=0)
    assert (spectra[0] - spectra[1])[~keep].abs().median() > 1


@given(st.integers(2, 10), st.integers(1, 150))
def test_coarse_to_fine_ends_with_all_steps(iterations, steps):
    free_init = FreeInit(iterations, "butterworth", 0.25, 0.25, 4, coarse_to_fine=True)
    counts = [free_init.steps(iteration, steps) for iteration in range(iterations)]
    assert counts == sorted(counts)
    assert counts[0] >= 1
    assert counts[-1] == steps
    assert FreeInit(iterations, "box", 1, 1, 1, coarse_to_fine=False).steps(0, steps) == steps


@pytest.mark.parametrize(("scale", "added"), [(1.0, 25.1), (1.0, 0.03), (0.6, 0.8), (0.06, 0.998)])
def test_level_of_the_start_is_found(scale, added):
    """k-diffusion adds σ times the noise; DDIM takes √ᾱ of the picture too."""
    picture, noise = normal(SHAPE, 1) + 0.5, normal(SHAPE, 2)
    assert start_sigma(scale * picture + added * noise, picture, noise) == pytest.approx(added / scale, rel=1e-5)
    assert start_sigma(added * noise, 0 * picture, noise) == pytest.approx(added, rel=1e-5)


def test_level_of_something_else_is_refused():
    with pytest.raises(ValueError, match="start from the picture and noise"):
        start_sigma(-normal(SHAPE, 1), normal(SHAPE, 1), normal(SHAPE, 2))


@pytest.mark.parametrize("sigma", [0.5, 3.0])
def test_on_a_picture_low_frequencies_of_the_start_are_the_noised_samples(sigma):
    """Picture + σ · noise is the start: with a filter that keeps everything, samples + σ · first noise."""
    picture, samples, first, fresh = (normal(SHAPE, seed) for seed in range(4))
    whole = FreeInit(2, "ideal", 1, 1, 4, coarse_to_fine=False)
    mask = low_pass("ideal", SHAPE, d_s=1, d_t=1)
    noise = whole.next_noise_on_picture(samples, first, fresh, picture, sigma)
    expected = mixed(samples + sigma * first, picture + sigma * fresh, mask)
    torch.testing.assert_close(picture + sigma * noise, expected, atol=1e-4, rtol=0)


def test_result_has_the_type_of_the_first_noise():
    free_init = FreeInit(2, "gaussian", 0.25, 0.25, 4, coarse_to_fine=False)
    samples, first, fresh = normal(SHAPE, 1).half(), normal(SHAPE, 2).half(), normal(SHAPE, 3)
    assert free_init.next_noise(samples, first, fresh, 0.01).dtype == torch.float16


def test_unknown_filter():
    with pytest.raises(ValueError, match="butterworth, gaussian, ideal or box, got 'sinc'"):
        low_pass("sinc", SHAPE)
