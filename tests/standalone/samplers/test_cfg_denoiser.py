"""Which rows reach the model, in which order, and what is made of its answers."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from motion.errors import SettingsError
from motion.standalone import samplers, script_callbacks
from motion.standalone.samplers.common import InterruptedException
from tests.standalone.samplers.closed_form import GaussianModel, image_cond, request, sample, sample_img2img

FRAMES = 3
SHORT, OTHER, LONG = "short", "other one", " ".join(["long"] * 15)


@pytest.fixture
def model(host):
    return GaussianModel(text_shift=0.01)


def run(model, prompts, negative_prompts=None, name="Euler", **changes):
    """Sample `prompts`; each picture starts as its number, so that a call's rows can be told apart."""
    changes = {"steps": 2, "cfg_scale": 5.0, "shape": (4, 2, 2), **changes}
    p = request(model, prompts, negative_prompts, **changes)
    x = torch.arange(1.0, len(prompts) + 1)[:, None, None, None].expand(-1, 4, 2, 2)
    p.rng.next()
    model.calls.clear()
    sampler = samplers.create_sampler(name, model)
    return p, sampler, sample(sampler, p, x)


def layout(call, num_pictures=FRAMES):
    """(picture, prompt length, tokens) of each row of a first step's call, "p0:5:77"."""
    level = call.x.flatten(1)[:, 0]
    first = level.min()
    return [
        f"p{round((row / first).item()) - 1}:{round(text[0, 0].item())}:{len(text)}"
        for row, text in zip(level, call.context, strict=True)
    ]


def rows(length, tokens=77):
    return [f"p{picture}:{length}:{tokens}" for picture in range(FRAMES)]


S, L = len(SHORT), len(LONG)


def calls_of_first_step(model, steps=2):
    return [layout(call) for call in model.calls[: len(model.calls) // steps]]


def test_one_call_conds_first(model):
    run(model, [SHORT] * FRAMES)
    assert calls_of_first_step(model) == [rows(S) + rows(0)]


def test_two_calls_when_not_batched(host, model):
    host.opts.data["batch_cond_uncond"] = False
    run(model, [SHORT] * FRAMES)
    assert calls_of_first_step(model) == [rows(S), rows(0)]


@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize(("prompt", "negative"), [(LONG, SHORT), (SHORT, LONG)])
def test_two_calls_when_token_counts_differ(host, model, batched, prompt, negative):
    host.opts.data["batch_cond_uncond"] = batched
    run(model, [prompt] * FRAMES, [negative] * FRAMES)
    tokens = {S: 77, L: 154}
    assert calls_of_first_step(model) == [rows(len(text), tokens[len(text)]) for text in (prompt, negative)]


@pytest.mark.parametrize("option", ["pad_cond_uncond", "pad_cond_uncond_v0"])
@pytest.mark.parametrize(("prompt", "negative"), [(LONG, SHORT), (SHORT, LONG)])
def test_one_call_when_token_counts_are_padded(host, model, option, prompt, negative):
    host.opts.data[option] = True
    p, _, _ = run(model, [prompt] * FRAMES, [negative] * FRAMES)
    tokens = 77 if option == "pad_cond_uncond_v0" and prompt == SHORT else 154
    assert calls_of_first_step(model) == [rows(len(prompt), tokens) + rows(len(negative), tokens)]
    key = {"pad_cond_uncond": "Pad conds", "pad_cond_uncond_v0": "Pad conds v0"}[option]
    assert p.extra_generation_params[key] is True


def test_padding_appends_the_empty_prompt_or_repeats_the_last_token(host, model):
    empty = model.cond_stage_model_empty_prompt + 42.0
    model.cond_stage_model_empty_prompt = empty
    host.opts.data["pad_cond_uncond"] = True
    run(model, [LONG], [SHORT])
    assert model.calls[0].context[1, :77].unique().item() == S
    torch.testing.assert_close(model.calls[0].context[1, 77:], empty[0])
    host.opts.data["pad_cond_uncond_v0"] = True
    run(model, [LONG], [SHORT])
    assert model.calls[0].context[1].unique().item() == S


def test_and_is_interleaved_per_picture(model):
    run(model, [f"{SHORT} AND {OTHER}"] * FRAMES)
    conds = [f"p{picture}:{length}:77" for picture in range(FRAMES) for length in (S, len(OTHER) + 1)]
    assert calls_of_first_step(model) == [conds + rows(0)]


def test_and_not_batched_is_cut_into_parts_of_one_batch(host, model):
    host.opts.data["batch_cond_uncond"] = False
    run(model, [f"{SHORT} AND {OTHER}"] * FRAMES)
    conds = [f"p{picture}:{length}:77" for picture in range(FRAMES) for length in (S, len(OTHER) + 1)]
    calls = [[text.rpartition(":")[0].partition(":")[2] for text in part] for part in calls_of_first_step(model)]
    expected = [text.rpartition(":")[0].partition(":")[2] for text in conds]
    assert calls == [expected[:3], expected[3:], ["0"] * 3]


def test_and_with_other_token_counts_is_cut_into_parts_of_two_batches(model):
    run(model, [f"{LONG} AND {OTHER} AND {SHORT}"] * FRAMES)
    assert [len(call) for call in calls_of_first_step(model)] == [6, 3, 3]


def test_and_of_uneven_pictures(model):
    run(model, [SHORT, f"{SHORT} AND {OTHER}", SHORT])
    first = calls_of_first_step(model)[0]
    assert [text[:2] for text in first] == ["p0", "p1", "p1", "p2", "p0", "p1", "p2"]


def test_and_weights_add_up(model):
    _, _, together = run(model, [f"{SHORT} AND {OTHER}:0.5"])
    lengths = {"cond": [S, len(OTHER) + 1], "weights": [1.0, 0.5]}
    shift = sum(w * length for w, length in zip(lengths["weights"], lengths["cond"], strict=True))
    _, _, single = run(model, ["x" * round(shift * 10)], cfg_scale=0.5)
    torch.testing.assert_close(together, single, rtol=0, atol=1e-4)


def test_guidance_is_still_made_of_both_at_scale_one(model):
    run(model, [SHORT] * FRAMES, cfg_scale=1.0)
    assert calls_of_first_step(model) == [rows(S) + rows(0)]


def test_early_steps_without_uncond(host, model):
    host.opts.data["skip_early_cond"] = 0.3
    p, _, _ = run(model, [SHORT] * FRAMES, steps=4)
    assert [len(call.x) for call in model.calls] == [3, 3, 6, 6]
    assert p.extra_generation_params["Skip Early CFG"] == 0.3


@pytest.mark.parametrize(("all_steps", "expected"), [(False, [6, 6, 6, 3]), (True, [6, 6, 3, 3])])
def test_low_noise_without_uncond(host, model, all_steps, expected):
    host.opts.data["s_min_uncond_all"] = all_steps
    p, _, _ = run(model, [SHORT] * FRAMES, steps=4, s_min_uncond=1.0)
    assert [len(call.x) for call in model.calls] == expected
    assert p.extra_generation_params["NGMS"] == 1.0


def test_skipping_uncond_with_and_sums_the_differences_to_the_first_entry(host, model):
    host.opts.data["skip_early_cond"] = 1.0
    run(model, [f"{SHORT} AND {OTHER}"] * FRAMES)
    assert [len(call.x) for call in model.calls] == [6, 6]


@pytest.mark.parametrize("name", ["Euler", "Euler a", "DPM++ 2M", "DDIM", "LCM"])
def test_splitting_calls_changes_no_picture(host, model, name):
    _, _, together = run(model, [SHORT, OTHER, SHORT], name=name, steps=4)
    host.opts.data["batch_cond_uncond"] = False
    _, _, apart = run(model, [SHORT, OTHER, SHORT], name=name, steps=4)
    torch.testing.assert_close(together, apart, rtol=0, atol=1e-5)


def test_prompts_change_at_their_step(model):
    run(model, ["[a:bbb:0.5]"], steps=4)
    # Conds are chosen by calls made so far, counted from 0, and a text ends with its last step: one call late.
    assert [round(call.context[0, 0, 0].item()) for call in model.calls] == [1, 1, 1, 3]


def test_callbacks_see_the_step(host, model):
    seen = []
    script_callbacks.on_cfg_denoiser(lambda params: seen.append(("denoiser", params)))
    script_callbacks.on_cfg_denoised(lambda params: seen.append(("denoised", params)))
    script_callbacks.on_cfg_after_cfg(lambda params: seen.append(("after", params)))
    _, sampler, _ = run(model, [SHORT] * FRAMES, steps=3)
    assert [name for name, _ in seen] == ["denoiser", "denoised", "after"] * 3
    before, after_call, after_guidance = (params for _, params in seen[-3:])
    assert before.x.shape == (6, 4, 2, 2)
    assert before.sigma.shape == (6,)
    assert before.image_cond.shape == (6, 5, 1, 1)
    assert before.text_cond.shape == (3, 77, 2)
    assert before.text_uncond.shape == (3, 77, 2)
    # The state's step follows after the call: it lags by one.
    assert [params.sampling_step for name, params in seen if name == "denoiser"] == [0, 0, 1]
    assert before.total_sampling_steps == 3
    assert before.denoiser is sampler.model_wrap_cfg
    assert (before.denoiser.steps, before.denoiser.total_steps) == (3, 3)
    assert after_call.x.shape == (6, 4, 2, 2)
    assert after_call.inner_model is sampler.model_wrap_cfg.inner_model
    assert after_guidance.x.shape == (3, 4, 2, 2)


def test_callbacks_can_replace_what_goes_in_and_what_comes_out(host, model):
    def halve_text(params):
        params.text_cond = params.text_cond * 0 + 9

    script_callbacks.on_cfg_denoiser(halve_text)
    script_callbacks.on_cfg_after_cfg(lambda params: setattr(params, "x", params.x * 0 + 2))
    _, _, result = run(model, [SHORT])
    assert model.calls[0].context[0].unique().item() == 9
    torch.testing.assert_close(result, torch.full_like(result, 2.0))


@pytest.mark.parametrize("flag", ["interrupted", "skipped"])
@pytest.mark.parametrize("name", ["Euler", "DDIM", "DPM++ 2M", "LCM", "Euler a"])
def test_interrupting_returns_the_last_prediction(host, model, flag, name):
    predictions = []
    script_callbacks.on_cfg_after_cfg(lambda params: predictions.append(params.x))
    script_callbacks.on_cfg_denoised(lambda params: setattr(host.state, flag, len(predictions) == 1))
    _, sampler, result = run(model, [SHORT] * FRAMES, name=name, steps=5)
    assert len(model.calls) == 2
    assert result is sampler.last_latent
    assert result.shape == (FRAMES, 4, 2, 2)


def test_interrupting_before_the_first_step_returns_the_noise(host, model):
    host.state.interrupted = True
    _, _, result = run(model, [SHORT])
    assert model.calls == []
    assert result.unique().item() == pytest.approx(14.6146, abs=1e-3)


def test_an_interrupt_passes_through_except_exception():
    assert not issubclass(InterruptedException, Exception)


@pytest.mark.parametrize("name", ["Euler", "DDIM"])
def test_masked_part_keeps_the_original(host, model, name):
    mask = torch.zeros(4, 8, 8)
    mask[..., :4] = 1.0
    p = request(model, [SHORT], steps=60, mask=mask, nmask=1 - mask, cfg_scale=1.0)
    original = torch.full((1, 4, 8, 8), 4.0)
    result = sample_img2img(samplers.create_sampler(name, model), p, original)
    if name == "Euler":
        torch.testing.assert_close(result[..., :4], original[..., :4], rtol=0, atol=1e-3)
    else:  # blended into the model's input, as in the web UI: the last step still changes it
        assert model.calls[-1].x[0, ..., :4].unique().item() == 4.0
    assert result[..., 4:].mean() < 3


def test_blending_hook_can_replace_the_blend(host, model):
    class Runner:
        def on_mask_blend(self, p, args):
            assert args.denoiser.p is p
            assert not args.is_final_blend
            args.blended_latent = args.blended_latent * 0 + 7

    mask = torch.ones(4, 8, 8)
    p = request(model, [SHORT], steps=3, mask=mask, nmask=1 - mask, scripts=Runner())
    result = sample_img2img(samplers.create_sampler("Euler", model), p, torch.zeros(1, 4, 8, 8))
    torch.testing.assert_close(result, torch.full_like(result, 7.0))


def test_checkpoint_switches_while_sampling_are_refused(model):
    p = request(model, [SHORT], refiner_checkpoint_info=SimpleNamespace(title="other"))
    with pytest.raises(SettingsError, match="Leave the refiner checkpoint empty"):
        samplers.create_sampler("Euler", model).sample(p, p.rng.next(), p.c, p.uc, image_conditioning=image_cond(p))
