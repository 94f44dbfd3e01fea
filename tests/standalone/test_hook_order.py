"""The order in which a job calls scripts and callbacks is that of AUTOMATIC1111 1.10.1, written out."""

from __future__ import annotations

import pytest
import torch
from PIL import Image

from motion.errors import SettingsError
from motion.standalone import errors, script_base, script_callbacks, shared
from tests.standalone.tiny_host import img2img, run, runner_of, running_host, txt2img

HOOKS = [
    "setup",
    "before_process",
    "process",
    "before_process_batch",
    "after_extra_networks_activate",
    "process_batch",
    "process_before_every_sampling",
    "before_hr",
    "post_sample",
    "postprocess_batch",
    "postprocess_batch_list",
    "postprocess_image",
    "postprocess_maskoverlay",
    "postprocess_image_after_composite",
    "postprocess",
    "on_mask_blend",
]
MODEL_CALL = ["on_cfg_denoiser", "unet", "on_cfg_denoised", "on_cfg_after_cfg"]
START = ["setup", "before_process", "process"]
BEFORE_SAMPLING = ["before_process_batch", "after_extra_networks_activate", "process_batch", "conds"]
SAMPLING = ["process_before_every_sampling", *MODEL_CALL, *MODEL_CALL]
IMAGE = ["postprocess_image", "postprocess_maskoverlay", "postprocess_image_after_composite"]
AFTER_SAMPLING = ["post_sample", "decode", "postprocess_batch", "postprocess_batch_list"]

TXT2IMG = [*START, "init", *BEFORE_SAMPLING, *SAMPLING, *AFTER_SAMPLING, *IMAGE, "postprocess"]
TWO_ITERATIONS_OF_TWO = [
    *START,
    "init",
    *BEFORE_SAMPLING,
    *SAMPLING,
    "post_sample",
    "decode",
    "decode",
    "postprocess_batch",
    "postprocess_batch_list",
    *IMAGE,
    *IMAGE,
    # The prompt is the same, so its conds come from the cache.
    *BEFORE_SAMPLING[:-1],
    *SAMPLING,
    "post_sample",
    "decode",
    "decode",
    "postprocess_batch",
    "postprocess_batch_list",
    *IMAGE,
    *IMAGE,
    "postprocess",
]
HIRES = [
    *START,
    "init",
    *BEFORE_SAMPLING,
    *SAMPLING,
    "after_extra_networks_activate",
    "before_hr",
    *SAMPLING,
    "decode",
    # The hires pass has decoded already.
    "post_sample",
    "postprocess_batch",
    "postprocess_batch_list",
    *IMAGE,
    "postprocess",
]
IMG2IMG = [*START, "init", "encode", *BEFORE_SAMPLING, *SAMPLING, *AFTER_SAMPLING, *IMAGE, "postprocess"]


class Recorder(script_base.Script):
    """Writes every hook into `events`; may raise in one."""

    def __init__(self, events, failing=None):
        self.events, self.failing, self.arguments = events, failing, {}

    def title(self):
        return "Recorder"


def _recording(name):
    def hook(self, p, *args, **kwargs):
        self.events.append(name)
        self.arguments[name] = (args, kwargs)
        if self.failing == name:
            raise RuntimeError(f"raised in {name}")

    return hook


for _name in HOOKS:
    setattr(Recorder, _name, _recording(_name))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    with running_host(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture
def events(model, monkeypatch):
    """Everything that happens, in order: hooks, callbacks, and the model's parts."""
    seen = []

    def spied(owner, name, label):
        original = getattr(owner, name)

        def call(*args, **kwargs):
            seen.append(label)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, call, raising=False)

    spied(model.first_stage_model, "encode", "encode")
    spied(model.first_stage_model, "decode", "decode")
    unet_hook = model.model.diffusion_model.register_forward_pre_hook(lambda *_: seen.append("unet"))
    for moment in ("cfg_denoiser", "cfg_denoised", "cfg_after_cfg"):
        getattr(script_callbacks, f"on_{moment}")(lambda params, moment=moment: seen.append(f"on_{moment}"))
    shared.opts.persistent_cond_cache = True
    from motion.standalone import host_state

    host_state.current().cond_caches.clear()
    yield seen
    unet_hook.remove()
    script_callbacks.clear_callbacks()


def watched(p, events):
    """`p` whose init and first encoding of prompts are events too."""
    init, encode = p.init, p.get_conds_with_caching

    def recorded_init(*args):
        events.append("init")
        init(*args)

    def recorded_encode(function, *args, **kwargs):
        def first(*function_args):
            if events[-1] != "conds" and not p.is_hr_pass:
                events.append("conds")
            return function(*function_args)

        return encode(first, *args, **kwargs)

    p.init, p.get_conds_with_caching = recorded_init, recorded_encode
    return p


def picture():
    return Image.new("RGB", (48, 32), (200, 80, 40))


def test_txt2img(events):
    run(watched(txt2img(runner_of(Recorder(events))), events))
    assert events == TXT2IMG


def test_two_batches_of_two(events):
    run(watched(txt2img(runner_of(Recorder(events)), batch_size=2, n_iter=2), events))
    assert events == TWO_ITERATIONS_OF_TWO


def test_hires_pass(events):
    fields = {"enable_hr": True, "hr_scale": 2, "hr_second_pass_steps": 2, "hr_upscaler": "Latent (nearest)"}
    result = run(watched(txt2img(runner_of(Recorder(events)), **fields), events))
    assert events == HIRES
    assert result.images[0].size == (64, 64)


def test_img2img(events):
    fields = {"init_images": [picture()], "denoising_strength": 1.0, "batch_size": 1}
    run(watched(img2img(runner_of(Recorder(events)), **fields), events))
    assert events == IMG2IMG


def test_inpainting_adds_the_mask_blends(events):
    mask = Image.new("L", (48, 32))
    mask.paste(255, (8, 8, 24, 24))
    fields = {"init_images": [picture()], "mask": mask, "denoising_strength": 1.0, "inpaint_full_res": False}
    run(watched(img2img(runner_of(Recorder(events)), **fields), events))
    blends = [place for place, event in enumerate(events) if event == "on_mask_blend"]
    assert len(blends) == 3  # one in each step, one at the end
    assert events[blends[-1] + 1] == "post_sample"


def test_arguments_of_the_hooks(events):
    recorder = Recorder(events)
    run(txt2img(runner_of(Recorder([]), recorder), batch_size=2))
    seen = recorder.arguments
    batch = {"batch_number": 0, "prompts": ["a cat"] * 2, "seeds": [7, 8]}
    for name in ("before_process_batch", "process_batch"):
        args, kwargs = seen[name]
        assert args == ("argument 1",)
        assert {key: kwargs[key] for key in batch} == batch
        assert len(kwargs["subseeds"]) == 2
    assert seen["after_extra_networks_activate"][1].keys() == {*batch, "subseeds", "extra_network_data"}
    sampling = seen["process_before_every_sampling"][1]
    assert sampling.keys() == {"x", "noise", "c", "uc"}
    assert sampling["x"].shape == (2, 4, 4, 4)
    images = seen["postprocess_batch"][1]
    assert images["images"].shape == (2, 3, 32, 32)
    assert images["batch_number"] == 0
    (leading, own), _ = seen["postprocess_batch_list"]
    assert isinstance(leading, script_base.PostprocessBatchListArgs)
    assert own == "argument 1"
    assert isinstance(seen["post_sample"][0][0], script_base.PostSampleArgs)
    assert seen["postprocess"][0][0].seed == 7


@pytest.mark.parametrize("failing", [name for name in HOOKS if name not in ("before_hr", "on_mask_blend")])
def test_an_exception_in_a_hook_is_swallowed(events, failing):
    others = []
    result = run(watched(txt2img(runner_of(Recorder(others, failing), Recorder(events))), events))
    assert len(result.images) == 1
    assert events == TXT2IMG
    assert failing in others
    assert errors.get_exceptions()[0]["exception"] == f"raised in {failing}"


def test_an_exception_in_a_callback_is_swallowed(events):
    script_callbacks.on_cfg_denoiser(lambda params: 1 / 0)
    run(watched(txt2img(runner_of(Recorder(events))), events))
    assert events == TXT2IMG


@pytest.mark.parametrize("error", [SettingsError("no"), RuntimeError("no"), KeyboardInterrupt()])
def test_an_exception_of_sampling_ends_the_job(events, error):
    p = watched(txt2img(runner_of(Recorder(events))), events)

    def sample(*args, **kwargs):
        events.append("sample")
        raise error

    p.sample = sample
    with pytest.raises(type(error)):
        run(p)
    assert events == [*START, "init", *BEFORE_SAMPLING, "sample"]


def test_interrupt_in_the_first_step_keeps_the_picture(events):
    script_callbacks.on_cfg_denoiser(lambda params: shared.state.interrupt())
    result = run(watched(txt2img(runner_of(Recorder(events)), steps=5, n_iter=3), events))
    assert events.count("unet") == 1
    assert events[events.index("post_sample") :] == [*AFTER_SAMPLING, *IMAGE, "postprocess"]
    assert len(result.images) == 1


def test_interrupt_before_sampling_leaves_no_picture(events):
    recorder = Recorder(events)
    recorder.process = lambda p, *args: shared.state.interrupt()
    result = run(txt2img(runner_of(recorder)))
    assert "post_sample" not in events
    assert (result.images, len(result.infotexts)) == ([], 1)


def test_stop_generating_ends_after_the_batch(events):
    script_callbacks.on_cfg_after_cfg(lambda params: shared.state.stop_generating())
    result = run(txt2img(runner_of(Recorder(events)), n_iter=3))
    assert len(result.images) == 1
    assert events.count("unet") == 2


def test_hires_pass_is_left_out_after_an_interrupt(events):
    script_callbacks.on_cfg_denoiser(lambda params: shared.state.interrupt())
    result = run(txt2img(runner_of(Recorder(events)), enable_hr=True, hr_scale=2))
    assert "before_hr" not in events
    assert result.images[0].size == (32, 32)


def test_setup_for_the_page_only(model):
    for is_api, expected in ((False, True), (True, False)):
        events = []
        recorder = Recorder(events)
        recorder.setup_for_ui_only = True
        p = txt2img()
        p.is_api = is_api
        p.script_args = [0, "argument"]
        assert events == []
        p.scripts = runner_of(recorder)
        assert ("setup" in events) == expected
