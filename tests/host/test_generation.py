"""Clips through the script's hooks in the embedded host: what the temporal layers see, what is left behind."""

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from motion.errors import InjectionError, MotionError
from motion.standalone import shared
from motion.standalone.script_base import Script
from tests.host.conftest import FRAMES
from tests.networks import assert_same_state, state_of
from tests.standalone import tiny_host

PROMPTS = {10: "a cat " * 5, 80: "a cat " * 40, 160: "a cat " * 80}
NEGATIVES = {0: "", 80: "bad hand " * 40, 200: "bad hand " * 100}


def pixels(processed):
    return np.stack([np.asarray(image, dtype=np.int16) for image in processed.images if not isinstance(image, str)])


@pytest.fixture
def temporal_calls(studio):
    """Shapes that the first temporal attention gets, one per UNet call: (space, frames)."""
    from motion.models.temporal_transformer import TemporalTransformer

    calls = []

    def spy(module, args):
        if isinstance(module, TemporalTransformer):
            calls.append((tuple(args[0].shape), args[1]))

    handle = torch.nn.modules.module.register_module_forward_pre_hook(spy)
    yield calls
    handle.remove()


@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("together", [False, True])
def test_temporal_layers_see_whole_clips_for_every_prompt_length(studio, temporal_calls, pad, together):
    shared.opts.pad_cond_uncond, shared.opts.batch_cond_uncond = pad, together
    for tokens, negative in itertools.product(PROMPTS, NEGATIVES):
        temporal_calls.clear()
        clip = studio.clip(prompt=PROMPTS[tokens], negative_prompt=NEGATIVES[negative], steps=1)
        assert len(clip.images) == FRAMES
        same_length = (tokens > 75) + (tokens > 150) == (negative > 75) + (negative > 150)
        rows = {shape[0] for shape, frames in temporal_calls if frames == FRAMES}
        assert rows == ({2 * FRAMES} if together and (pad or same_length) else {FRAMES}), (tokens, negative)
        assert {frames for _, frames in temporal_calls} == {FRAMES}


@pytest.mark.parametrize("module", ["v1", "v2", "v3"])
@pytest.mark.parametrize("prompt", ["a cat", "a cat AND a dog:0.7"])
def test_cond_and_uncond_together_or_apart_give_the_same_clip(studio, module, prompt):
    """In 8-bit steps: fp32 sums in another order may round a pixel the other way."""
    results = []
    for together in (True, False):
        shared.opts.batch_cond_uncond = together
        if "AND" in prompt and not together:
            with pytest.raises(InjectionError, match="A prompt with AND was split"):
                studio.clip({"motion_module": module}, prompt=prompt)
            shared.opts.batch_cond_uncond = True
            # unequal token counts split conds from unconds, and all conds stay in one call
            results.append(pixels(studio.clip({"motion_module": module}, prompt=prompt, negative_prompt="")))
        else:
            results.append(pixels(studio.clip({"motion_module": module}, prompt=prompt)))
    assert np.abs(results[0] - results[1]).max() <= 1


def test_and_is_the_weighted_sum_of_its_parts(studio):
    """`a AND a:0` is `a`: the interleaved rows are put back in order."""
    plain = pixels(studio.clip(prompt="a cat"))
    combined = pixels(studio.clip(prompt="a cat AND a dog:0"))
    assert np.abs(plain - combined).max() <= 1


@pytest.mark.parametrize(
    ("option", "value", "fields"),
    [("skip_early_cond", 0.5, {}), ("s_min_uncond_all", True, {"s_min_uncond": 15.0}), (None, None, {"cfg_scale": 1})],
)
def test_steps_without_uncond(studio, temporal_calls, option, value, fields):
    if option:
        setattr(shared.opts, option, value)
    studio.clip(**fields)
    assert {frames for _, frames in temporal_calls} == {FRAMES}
    if option:
        assert FRAMES in {shape[0] for shape, _ in temporal_calls}


@pytest.mark.parametrize("module", ["v1", "v2", "v3"])
def test_frames_depend_on_each_other(studio, module):
    moving, still = (pixels(studio.clip({"motion_module": module, "motion_scale": scale})) for scale in (1, 0))
    assert np.abs(moving - still).mean() > 0.5


def test_scale_zero_is_the_hosts_own_batch(studio):
    batch = studio.still(batch_size=FRAMES)
    assert [image.tobytes() for image in studio.clip({"motion_scale": 0}).images] == batch


def test_seeds_of_frames(studio):
    per_frame = studio.clip({"motion_scale": 0})
    same = studio.clip({"motion_scale": 0, "seed_behaviour": "same for all frames"}, n_iter=2)
    assert per_frame.all_seeds == [7, 8, 9, 10]
    assert same.all_seeds == [7] * FRAMES + [8] * FRAMES
    frames = pixels(same)
    assert (frames[0] == frames[1:FRAMES]).all()
    assert (frames[0] != frames[FRAMES]).any()


HOOKS = [
    "before_process",
    "process",
    "before_process_batch",
    "after_extra_networks_activate",
    "process_batch",
    "process_before_every_sampling",
    "post_sample",
    "postprocess_batch",
    "postprocess_batch_list",
    "postprocess_image",
    "postprocess_maskoverlay",
    "postprocess_image_after_composite",
    "postprocess",
]


def raising_in(hook):
    def fail(self, *args, **kwargs):
        raise RuntimeError(f"neighbour fails in {hook}")

    return type("Neighbour", (Script,), {"title": lambda self: "Neighbour", hook: fail})()


@pytest.mark.parametrize("hook", HOOKS)
def test_a_neighbour_that_raises_in_a_hook_leaves_no_trace(studio, hook):
    unet, plain = studio.model.model.diffusion_model, studio.still()
    before = state_of(unet)
    studio.clip(neighbours=[raising_in(hook)])
    assert_same_state(before, state_of(unet))
    assert studio.still() == plain


@pytest.mark.parametrize("module", ["v1", "v2"])
@pytest.mark.parametrize("call", [1, 2, 3])
def test_failure_in_a_unet_call_leaves_no_trace(studio, module, call):
    unet, plain = studio.model.model.diffusion_model, studio.still()
    before, schedule, count = state_of(unet), studio.model.alphas_cumprod, itertools.count(1)

    def fail(*args):
        if next(count) == call:
            raise torch.OutOfMemoryError("no memory left")

    handle = unet.output_blocks[0].register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        studio.clip({"motion_module": module}, steps=3)
    handle.remove()
    assert_same_state(before, state_of(unet))
    assert studio.model.alphas_cumprod is schedule
    assert studio.still() == plain


def test_failure_in_the_vae_leaves_no_trace(studio):
    unet, plain = studio.model.model.diffusion_model, studio.still()
    before = state_of(unet)
    handle = studio.model.first_stage_model.decoder.register_forward_pre_hook(
        lambda *args: (_ for _ in ()).throw(RuntimeError("VAE failed"))
    )
    with pytest.raises(RuntimeError, match="VAE failed"):
        studio.clip()
    handle.remove()
    assert_same_state(before, state_of(unet))
    assert studio.still() == plain


def test_interrupt_keeps_the_frames_and_leaves_no_trace(studio):
    unet, plain = studio.model.model.diffusion_model, studio.still()
    before, calls = state_of(unet), []

    def stop(*args):
        calls.append(1)
        if len(calls) == 2:
            shared.state.interrupt()

    handle = unet.register_forward_pre_hook(stop)
    clip = studio.clip(steps=5)
    handle.remove()
    assert len(calls) < 5
    assert len(clip.images) == FRAMES
    assert_same_state(before, state_of(unet))
    assert studio.still() == plain


def test_neighbours_hooks_stay(studio):
    unet, seen = studio.model.model.diffusion_model, []
    first = unet.middle_block[1].register_forward_hook(lambda *args: seen.append("before"))

    class Neighbour(Script):
        def title(self):
            return "Neighbour"

        def process_before_every_sampling(self, p, *args, **kwargs):
            self.handle = unet.middle_block[1].register_forward_hook(lambda *args: seen.append("during"))

    neighbour = Neighbour()
    studio.clip(neighbours=[neighbour], steps=1)
    assert seen
    assert set(seen) == {"before", "during"}
    seen.clear()
    studio.still(steps=1)
    assert set(seen) == {"before", "during"}
    first.remove()
    neighbour.handle.remove()


def test_replaced_sampling_makes_no_clip(studio):
    """Somebody replaces `p.sample` after us without calling ours: no stills pass as a clip."""

    class Thief(Script):
        def title(self):
            return "Thief"

        def process(self, p, *args):
            p.sample = type(p).sample.__get__(p)

    clip = studio.clip(neighbours=[Thief()])
    assert "Another extension replaced this request's sampling" in "".join(clip.comments + str(clip.info))
    assert not [image for image in clip.images if isinstance(image, str)]


@pytest.mark.parametrize("sampler", ["Euler", "Euler a", "DPM++ 2M Karras", "DDIM", "LCM"])
@pytest.mark.parametrize("make", ["txt2img", "hires", "img2img"])
def test_the_sampler_reads_the_modules_schedule(studio, sampler, make):
    """Largest noise level: 25.1 with the module's schedule, 14.6 with the host's own."""
    used = []

    class Probe(Script):
        def title(self):
            return "Probe"

        def process_before_every_sampling(self, p, *args, **kwargs):
            wrap = p.sampler.model_wrap_cfg.inner_model
            alphas = p.sd_model.alphas_cumprod  # what DDIM reads
            table = wrap.sigmas if hasattr(wrap, "sigmas") else ((1 - alphas) / alphas) ** 0.5
            used.append(float(table[-1]))

    fields = {"sampler_name": sampler, "steps": 3}  # of two, DDIM would run none in a second pass
    if make == "hires":
        fields |= {"enable_hr": True, "hr_upscaler": "Latent", "hr_scale": 2.0, "denoising_strength": 0.9}
    if make == "img2img":
        fields |= {"init_images": [Image.new("RGB", (32, 32), "red")], "denoising_strength": 0.9}
    factory = tiny_host.img2img if make == "img2img" else tiny_host.txt2img
    clip = studio.clip(make=factory, neighbours=[Probe()], **fields)
    assert len(clip.images) == FRAMES
    assert used == pytest.approx([25.1] * (2 if make == "hires" else 1), abs=0.1)
    own = studio.model.alphas_cumprod[-1]
    assert float(((1 - own) / own) ** 0.5) == pytest.approx(14.6, abs=0.1)


BAD = [
    ({"motion_module": ""}, "must name a motion module file, got none"),
    (
        {"motion_module": "missing"},
        "there is no motion module of this name. Choose one of: v1.safetensors, v2.safetensors",
    ),
    ({"num_frames": 0}, "`num_frames` must be a whole number from 1"),
    ({"num_frames": 10**9}, "got 1000000000"),
    ({"context_length": 33}, "`context_length` must be at most 32 with this motion module, got 33"),
    ({"context_overlap": 16}, r"`context_overlap` must be smaller than `context_length` \(16\), got 16"),
    ({"context_stride": 2, "context_schedule": "static"}, "`context_stride` must be 1 with the schedule 'static'"),
    ({"fps": 0}, "`fps` must be"),
    ({"frames": 3}, "Unknown field `frames`"),
    ({"motion_module": "text.safetensors"}, "text.safetensors: "),
    ({"motion_module": "wide.safetensors"}, "32 channels there, the motion module 64"),
    ({"motion_module": "pan.safetensors"}, "motion LoRA"),
    ({"motion_loras": "<lora:missing:1>"}, "must name motion LoRAs, got <lora:missing:1>, which is none"),
    ({"motion_loras": "<lora:ordinary:1>"}, "must name motion LoRAs, got <lora:ordinary:1>, which is none"),
    ({"motion_loras": "<lora:pan:3>"}, "must be from -2 to 2, got 3"),
    ({"motion_loras": "<lora:pan:1@0-4>"}, "must end by frame 3, the clip's last, got 0-4"),
    ({"domain_adapter": "missing"}, "there is no domain adapter of this name. Choose one of: adapter.safetensors"),
    ({"domain_adapter": "pan.safetensors"}, "motion LoRA"),
    ({"module_family": "sdxl_beta"}, "sdxl_beta"),
]


@pytest.mark.parametrize(("fields", "message"), BAD)
def test_bad_input_is_one_message_and_nothing_runs(studio, fields, message, temporal_calls):
    calls = []
    handle = studio.model.model.diffusion_model.register_forward_pre_hook(lambda *args: calls.append(1))
    with pytest.raises(MotionError, match=message) as caught:
        studio.clip(fields)
    handle.remove()
    assert vars(caught.value)["status_code"] == 422
    assert not calls


def test_unwritable_output_folder_is_refused_before_sampling(studio):
    taken = studio.folder / "taken"
    taken.write_text("a file")
    p = studio.job(outpath_samples=str(taken / "below"))
    p.do_not_save_samples = False
    with pytest.raises(MotionError, match=r"output folder .* must be a folder that can be written to"):
        tiny_host.run(p)


def test_an_encoder_that_fails_over_the_api_gives_the_frames_and_the_reason(studio):
    class Blocker(Script):
        """Puts a folder where the MP4 must go, once the clip has its name."""

        def title(self):
            return "Blocker"

        def postprocess_image(self, p, pp, *args):
            if p.batch_index == FRAMES - 1:
                self.folder = p._motion_generation._output._folder
                (self.folder / "00000-7.mp4").mkdir()

    blocker = Blocker()
    clip = studio.clip({"formats": ["MP4", "GIF"]}, neighbours=[blocker])
    assert [isinstance(image, str) for image in clip.images] == [True] + [False] * FRAMES
    assert "MP4" in clip.extra_generation_params["Motion error"]
    assert "frames are safe in" in clip.comments
    assert len(list(blocker.folder.glob("00000-7/*.png"))) == FRAMES
    shutil.rmtree(blocker.folder)


def test_frames_with_different_prompts_are_refused(studio):
    class Wildcards(Script):
        def title(self):
            return "Wildcards"

        def process(self, p, *args):
            p.all_prompts = [f"{prompt} {number}" for number, prompt in enumerate(p.all_prompts)]

    with pytest.raises(MotionError, match="must have one prompt, got 4 different prompts"):
        studio.clip(neighbours=[Wildcards()])
    with pytest.raises(MotionError, match="must have one prompt, got 3 prompts"):
        studio.clip(prompt=["a", "b", "c"])


def test_img2img_takes_one_picture_or_one_per_frame(studio):
    pictures = [Image.new("RGB", (32, 32), color) for color in ("red", "green", "blue", "white")]
    studio.clip(make=tiny_host.img2img, init_images=pictures, steps=4)
    with pytest.raises(MotionError, match=r"one picture or from one per frame \(4\), got 2"):
        studio.clip(make=tiny_host.img2img, init_images=pictures[:2], steps=4)


def test_frames_dropped_by_a_neighbour_still_make_a_clip(studio):
    class Dropper(Script):
        def title(self):
            return "Dropper"

        def postprocess_batch_list(self, p, pp, *args, **kwargs):
            pp.images[:] = pp.images[:3]

    clip = studio.clip({"formats": ["GIF"]}, neighbours=[Dropper()])
    assert [isinstance(image, str) for image in clip.images] == [True]
    assert "left 3 frames" in clip.comments


def test_the_infotext_names_no_folders(studio, module_folder):
    clip = studio.clip({"motion_module": str(module_folder / "v2.safetensors")})
    assert "Motion module: v2.safetensors," in clip.infotexts[0]


def test_names_that_no_file_system_takes(studio):
    for name in ("x" * 5000, "a\0b"):
        with pytest.raises(MotionError, match="there is no motion module of this name"):
            studio.clip({"motion_module": name})
