"""Jobs: what comes out of them, and what they leave behind."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from motion.errors import SettingsError
from motion.standalone import hires, images, infotext, processing, samplers, script_base, script_callbacks, shared
from tests.standalone.tiny_host import img2img, run, runner_of, running_host, txt2img


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    with running_host(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture(autouse=True)
def _settings(model):
    before = dict(shared.opts.data)
    yield
    shared.opts.data = before
    script_callbacks.clear_callbacks()


def picture(width=32, height=32, colour=(200, 80, 40)):
    image = Image.new("RGB", (width, height), colour)
    image.paste((20, 60, 180), (0, 0, width // 2, height // 2))
    return image


def pixels(result):
    return [np.asarray(image) for image in result.images]


def assert_equal_images(first, second):
    assert len(first) == len(second)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_same_job_makes_the_same_picture():
    assert_equal_images(pixels(run(txt2img())), pixels(run(txt2img())))
    assert_equal_images(pixels(run(img2img(init_images=[picture()]))), pixels(run(img2img(init_images=[picture()]))))


def test_seeds_and_infotext_of_a_batch():
    result = run(txt2img(batch_size=2, n_iter=2))
    assert result.all_seeds == [7, 8, 9, 10]
    assert [infotext.parse_generation_parameters(text)["Seed"] for text in result.infotexts] == ["7", "8", "9", "10"]
    assert len({image.tobytes() for image in result.images}) == 4
    assert all(image.info["parameters"] == text for image, text in zip(result.images, result.infotexts, strict=True))
    # A batch has other rounding than a single picture, no other content.
    alone = pixels(run(txt2img(seed=9)))[0].astype(int)
    assert abs(pixels(result)[2].astype(int) - alone).max() <= 1


def test_variation_keeps_the_seed():
    result = run(txt2img(batch_size=2, subseed=40, subseed_strength=0.5))
    assert (result.all_seeds, result.all_subseeds) == ([7, 7], [40, 41])
    assert result.images[0].tobytes() != result.images[1].tobytes()
    assert "Variation seed: 41, Variation seed strength: 0.5" in result.infotexts[1]


def test_lists_of_prompts_and_seeds():
    result = run(txt2img(prompt=["a cat", "a dog"], negative_prompt=["", "blue"], seed=[3, 30], batch_size=2))
    assert (result.all_prompts, result.all_seeds) == (["a cat", "a dog"], [3, 30])
    assert result.infotexts[1].startswith("a dog\nNegative prompt: blue\n")
    with pytest.raises(RuntimeError, match=r"different number of prompts \(2\) and negative prompts \(1\)"):
        run(txt2img(prompt=["a", "b"], negative_prompt=["c"]))


def test_and_makes_two_conditions_a_picture():
    rows = []
    script_callbacks.on_cfg_denoiser(lambda params: rows.append(len(params.x)))
    run(txt2img(prompt="a cat AND a dog:0.5", batch_size=2))
    assert rows == [6, 6]


def test_grid_comes_first_and_is_saved():
    p = txt2img(batch_size=2)
    p.do_not_save_grid = p.do_not_save_samples = False
    result = run(p)
    assert (len(result.images), result.index_of_first_image, len(result.infotexts)) == (3, 1, 3)
    assert result.images[0].size in ((64, 32), (32, 64))
    saved = [image.already_saved_as for image in result.images[1:]]
    assert [images.read_info_from_image(Image.open(path))[0] for path in saved] == result.infotexts[1:]
    assert all(shared.opts.outdir_txt2img_samples in path for path in saved)


def test_interrupted_images_are_not_saved():
    script_callbacks.on_cfg_denoiser(lambda params: shared.state.interrupt())
    p = txt2img()
    p.do_not_save_samples = False
    assert not hasattr(run(p).images[0], "already_saved_as")


@pytest.mark.parametrize("failing", [False, True])
def test_settings_of_a_job_are_restored(failing):
    seen = []

    class Spy(script_base.Script):
        def title(self):
            return "Spy"

        def before_process(self, p, *args):
            seen.append(shared.opts.CLIP_stop_at_last_layers)

        def process(self, p, *args):
            seen.append(shared.opts.CLIP_stop_at_last_layers)

    p = txt2img(runner_of(Spy()), override_settings={"CLIP_stop_at_last_layers": 2, "eta_noise_seed_delta": 31337})
    if failing:
        p.sample = lambda *args, **kwargs: 1 / 0
        with pytest.raises(ZeroDivisionError):
            run(p)
    else:
        assert "Clip skip: 2" in run(p).info
    assert seen == [1, 2]
    assert (shared.opts.CLIP_stop_at_last_layers, shared.opts.eta_noise_seed_delta) == (1, 0)


def test_settings_may_stay():
    fields = {"override_settings": {"samples_format": "webp"}, "override_settings_restore_afterwards": False}
    run(txt2img(**fields))
    assert shared.opts.samples_format == "webp"


def test_unknown_settings_and_features_are_refused():
    with pytest.raises(SettingsError, match="unknown setting 'no_such'"):
        run(txt2img(override_settings={"no_such": 1}))
    for field, value in (("restore_faces", True), ("tiling", True), ("refiner_checkpoint", "other")):
        with pytest.raises(SettingsError, match="This host has no"):
            run(txt2img(**{field: value}))
    with pytest.raises(SettingsError, match="Sampler 'Nonsense' is unknown"):
        run(txt2img(sampler_name="Nonsense"))
    with pytest.raises(SettingsError, match="No upscaler is named 'Nonsense'"):
        run(txt2img(enable_hr=True, hr_upscaler="Nonsense"))
    with pytest.raises(SettingsError, match="No checkpoint is named 'Nonsense'"):
        run(txt2img(enable_hr=True, hr_checkpoint_name="Nonsense"))
    with pytest.raises(SettingsError, match="needs a picture to start from"):
        run(img2img())
    with pytest.raises(SettingsError, match="at most 1 start pictures"):
        run(img2img(init_images=[picture(), picture()]))


@pytest.mark.parametrize("upscaler", [None, "Latent (bicubic antialiased)", "None", "Lanczos", "Nearest"])
def test_hires_upscalers(upscaler):
    result = run(txt2img(enable_hr=True, hr_scale=1.5, hr_upscaler=upscaler, denoising_strength=0.6, batch_size=2))
    assert [image.size for image in result.images] == [(48, 48)] * 2
    found = infotext.parse_generation_parameters(result.infotexts[0])
    assert (found["Hires upscale"], found["Denoising strength"], found["Size-1"]) == ("1.5", "0.6", "32")
    assert found.get("Hires upscaler") == upscaler


def test_hires_prompts_sampler_and_saved_first_pass():
    shared.opts.save_images_before_highres_fix = True
    saved = []
    script_callbacks.on_image_saved(lambda params: saved.append(params.image.size))
    fields = {"hr_prompt": "a dog", "hr_sampler_name": "DDIM", "hr_second_pass_steps": 3}
    p = txt2img(enable_hr=True, hr_resize_x=64, hr_resize_y=32, **fields)
    p.do_not_save_samples = False
    found = infotext.parse_generation_parameters(run(p).info)
    assert (found["Hires prompt"], found["Hires sampler"], found["Hires steps"]) == ("a dog", "DDIM", "3")
    assert saved == [(32, 32), (64, 32)]


@pytest.mark.parametrize(
    ("first", "scale", "resize", "expected"),
    [
        ((512, 768), 2.0, (0, 0), (1024, 1536)),
        ((512, 768), 2.0, (1024, 0), (1024, 1536)),
        ((512, 768), 2.0, (0, 768), (512, 768)),
        ((512, 512), 2.0, (1024, 768), (1024, 1024)),
        ((512, 512), 2.0, (768, 1024), (1024, 1024)),
    ],
)
def test_hires_sizes(first, scale, resize, expected):
    assert hires.hires_size(first, scale, resize) == expected


def test_cutting_takes_both_sides():
    latents = torch.arange(9.0).expand(1, 1, 4, 9)
    assert hires.cut_middle(latents, 3, 0)[0, 0, 0].tolist() == [1, 2, 3, 4, 5, 6]


def test_one_start_picture_has_one_latent():
    p = img2img(init_images=[picture()], batch_size=3)
    run(p)
    assert all(torch.equal(row, p.init_latent[0]) for row in p.init_latent)
    other = img2img(init_images=[picture(), picture(colour=(0, 0, 0)), picture()], batch_size=3)
    run(other)
    assert torch.equal(other.init_latent[2], p.init_latent[0])
    assert not torch.equal(other.init_latent[1], p.init_latent[0])


def test_denoising_strength_keeps_the_picture():
    def distance(strength):
        p = img2img(init_images=[picture()], denoising_strength=strength, steps=8)
        kept = {}

        def spy(params, p=p):
            kept["sigma"] = params.sigma[0].item() if "sigma" not in kept else kept["sigma"]

        script_callbacks.on_cfg_denoiser(spy)
        run(p)
        script_callbacks.clear_callbacks()
        return kept["sigma"]

    assert distance(0.25) < distance(0.5) < distance(1.0)


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_resize_modes(mode):
    result = run(img2img(init_images=[picture(64, 32)], resize_mode=mode))
    assert result.images[0].size == (32, 32)


@pytest.mark.parametrize("fill", [0, 1, 2, 3])
@pytest.mark.parametrize("full_resolution", [False, True])
def test_inpainting_leaves_the_rest(fill, full_resolution):
    start, mask = picture(64, 64), Image.new("L", (64, 64))
    mask.paste(255, (24, 24, 40, 40))
    fields = {"inpainting_fill": fill, "inpaint_full_res": full_resolution, "mask_blur": 0, "width": 64, "height": 64}
    p = img2img(init_images=[start], mask=mask, denoising_strength=1.0, **fields)
    result = np.asarray(run(p).images[0])
    outside = np.asarray(mask) == 0
    assert result.shape == (64, 64, 3)
    assert np.array_equal(result[outside], np.asarray(start)[outside])
    assert not np.array_equal(result[~outside], np.asarray(start)[~outside])


def test_an_empty_mask_is_told():
    result = run(img2img(init_images=[picture()], mask=Image.new("L", (32, 32))))
    assert "The mask is empty" in result.comments


def test_batches_may_grow_and_decoded_lists_pass():
    class Grows(script_base.Script):
        def title(self):
            return "Grows"

        def post_sample(self, p, ps, *args):
            assert not getattr(ps.samples, "already_decoded", False)
            ps.samples = processing.DecodedSamples([torch.full((3, 16, 8), -1.0)])

        def postprocess_batch_list(self, p, pp, *args, **kwargs):
            pp.images = [*pp.images, torch.full((3, 16, 8), 0.5)]
            p.prompts, p.negative_prompts = [*p.prompts, "added"], [*p.negative_prompts, ""]
            p.seeds, p.subseeds = [*p.seeds, 99], [*p.subseeds, 0]

    result = run(txt2img(runner_of(Grows())))
    assert [image.size for image in result.images] == [(8, 16)] * 2
    assert [image.getpixel((0, 0)) for image in result.images] == [(0, 0, 0), (127, 127, 127)]
    assert result.infotexts[1].startswith("added\nSteps: 2,")
    assert "Seed: 99" in result.infotexts[1]


def test_conds_are_encoded_once_for_the_same_prompt(model):
    calls = []
    hook = model.cond_stage_model.register_forward_pre_hook(lambda *_: calls.append(1))
    try:
        for prompt, expected in (("unheard of", 2), ("unheard of", 0), ("unheard of too", 1)):
            calls.clear()
            run(txt2img(prompt=prompt, negative_prompt="never seen"))
            assert len(calls) == expected
        shared.opts.CLIP_stop_at_last_layers = 2
        calls.clear()
        run(txt2img(prompt="unheard of too", negative_prompt="never seen"))
        assert len(calls) == 2
    finally:
        hook.remove()


def test_every_sampler_runs_both_ways():
    for name in samplers.visible_sampler_names():
        assert len(run(txt2img(sampler_name=name)).images) == 1
        assert len(run(img2img(sampler_name=name, init_images=[picture()])).images) == 1


def test_progress_of_a_job():
    seen = []
    script_callbacks.on_cfg_denoiser(lambda params: seen.append((shared.state.job_no, shared.state.job_count)))
    run(txt2img(n_iter=2, enable_hr=True, hr_scale=1.5))
    assert sorted(set(seen)) == [(0, 4), (1, 4), (2, 4), (3, 4)]
    assert (shared.state.job, shared.state.job_count) == ("", 0)
