"""Where the A1111 adapter says a UNet runs, in which formats, and whether its weights come and go."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

pytestmark = pytest.mark.usefixtures("web_ui")


def placement(unet, **attributes):
    from motion.host.a1111 import A1111Host

    sd_model = SimpleNamespace(model=SimpleNamespace(diffusion_model=unet), **attributes)
    return A1111Host(SimpleNamespace(sd_model=sd_model), 4).placement()


def test_follows_the_host(web_ui):
    found = placement(nn.Linear(4, 4))
    assert found.dtype == found.storage_dtype == torch.float32
    assert found.device == torch.device("cpu")
    assert not found.streamed


def test_fp8_storage_is_seen_in_the_weights():
    """The option fp8_storage narrows convolutions and matrices with their biases; norms keep the UNet's type."""
    unet = nn.Sequential(nn.GroupNorm(2, 4), nn.Linear(4, 4).to(torch.float8_e4m3fn))
    found = placement(unet)
    assert (found.dtype, found.storage_dtype) == (torch.float32, torch.float8_e4m3fn)


def test_integers_of_quantised_weights_are_no_storage_format():
    unet = nn.Linear(4, 4)
    unet.weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.uint8), requires_grad=False)
    assert placement(unet).storage_dtype == torch.float32


@pytest.mark.parametrize(("flag", "streamed"), [("lowvram", True), ("medvram", False)])
def test_only_lowvram_streams_the_blocks(web_ui, flag, streamed):
    """The host marks the model `lowvram` with both flags."""
    setattr(web_ui.cmd_opts, flag, True)
    assert placement(nn.Linear(4, 4), lowvram=True).streamed is streamed


def test_lowvram_without_effect_on_this_model(web_ui):
    web_ui.cmd_opts.lowvram = True
    assert not placement(nn.Linear(4, 4), lowvram=False).streamed
