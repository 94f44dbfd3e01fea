"""Clips, failed ones among them, leave memory as they found it, and unloading frees the module."""

import gc
import sys
import weakref

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.load_memory import read_anonymous_bytes
from motion.errors import MotionError
from motion.models.motion_module import MotionModel
from motion.standalone import namespace
from tests.standalone import tiny_host

PICTURE = Image.new("RGB", (32, 32), "red")


def kept_files():
    from motion.host.script import MotionScript

    return MotionScript.files


def fail_in(module, message, studio, motion):
    def fail(*args):
        raise RuntimeError(message)

    handle = module.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=message):
        studio.clip(motion, steps=1)
    handle.remove()


def fails_in_the_unet(studio):
    block = studio.model.model.diffusion_model.output_blocks[0]
    fail_in(block, "no memory left", studio, {"motion_module": "v2", "motion_loras": "<lora:pan:0.8>"})


def fails_in_the_decoder(studio):
    fail_in(studio.model.first_stage_model.decoder, "VAE failed", studio, {"motion_module": "v1"})


def is_refused(studio):
    with pytest.raises(MotionError, match="must be from -2 to 2"):
        studio.clip({"motion_loras": "<lora:pan:3>"})


def has_loras_and_an_adapter(studio):
    loras = "<lora:pan:0.8> <lora:zoom:-1@0-1>"
    studio.clip({"motion_loras": loras, "domain_adapter": "adapter.safetensors"}, steps=1)


def starts_from_a_picture(studio):
    studio.clip({"motion_module": "v3"}, make=tiny_host.img2img, init_images=[PICTURE], steps=2)


CLIPS = (fails_in_the_unet, fails_in_the_decoder, is_refused, has_loras_and_an_adapter, starts_from_a_picture)


def live(kind):
    gc.collect()
    return [each for each in gc.get_objects() if issubclass(type(each), kind)]


def live_tensors():
    """(number of tensors that are alive, their bytes)."""
    tensors = live(torch.Tensor)
    return len(tensors), sum({each.untyped_storage().data_ptr(): each.nbytes for each in tensors}.values())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
def test_20_clips_leave_memory_flat(studio):
    others = {id(model) for model in live(MotionModel)}  # that another file's fixtures hold in this process
    for clip in CLIPS:  # what is made once
        clip(studio)
    tensors, anonymous = live_tensors(), read_anonymous_bytes()
    for number in range(20):
        CLIPS[number % len(CLIPS)](studio)
    (model,) = [each for each in live(MotionModel) if id(each) not in others]  # of three files used in turn
    assert live_tensors() == tensors
    growth = read_anonymous_bytes() - anonymous
    assert growth < 20 * sum(tensor.nbytes for tensor in model.state_dict().values()) / 2


@pytest.mark.parametrize("clip", [has_loras_and_an_adapter, fails_in_the_unet, fails_in_the_decoder])
@pytest.mark.parametrize("unload", ["button", "end of the host"])
def test_the_module_is_free_once_unloaded(studio, clip, unload):
    gc.disable()  # a circle of references would hold a gigabyte until Python looks for it
    try:
        clip(studio)
        kept = weakref.ref(kept_files()._loaded.model)
        assert kept() is not None
        (kept_files().unload if unload == "button" else namespace.uninstall)()
        assert kept() is None
    finally:
        gc.enable()


def test_no_file_of_ours_holds_weights(studio):
    starts_from_a_picture(studio)
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "motion"}
    held = [
        f"{name}.{key}"
        for name, module in ours.items()
        for key, value in vars(module).items()
        for each in (value.values() if isinstance(value, dict) else [value])
        if isinstance(each, torch.Tensor | nn.Module)
    ]
    assert held == []
