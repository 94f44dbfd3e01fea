"""A clip's way from latents to frames on disk, through the script's hooks in the embedded host."""

import numpy as np
import pytest
import torch
from PIL import Image

from motion.standalone import devices, shared
from motion.standalone.script_base import Script
from tests.host.conftest import FRAMES
from tests.host.test_generation import pixels
from tests.standalone import tiny_host


class Latents(Script):
    """Looks at what leaves `p.sample`, and may decode it as the host would."""

    def title(self):
        return "Latents"

    def post_sample(self, p, ps, *args):
        self.samples = ps.samples


@pytest.fixture
def decoder(studio, monkeypatch):
    """Calls of the decoder, by their number of frames; `before[i]` runs before call i."""
    calls, model = [], studio.model
    inner, calls_before = model.decode_first_stage, {}

    def decode(z):
        calls.append(tuple(z.shape))
        calls_before.get(len(calls), lambda: None)()
        return inner(z)

    monkeypatch.setattr(model, "decode_first_stage", decode, raising=False)
    calls_before["calls"] = calls
    return calls_before


def saved(studio, **fields):
    p = studio.job(fields.pop("motion", None), **fields)
    p.is_api, p.outpath_clips = False, str(studio.folder / "out")
    return p


def test_frames_are_the_hosts_own_to_the_bit(studio):
    from motion.standalone.latents import decode_latent_batch, stack_pictures

    kept = {}
    handle = studio.model.first_stage_model.post_quant_conv.register_forward_pre_hook(
        lambda module, args: kept.setdefault(len(kept), args[0].clone())
    )
    clip = studio.clip()
    handle.remove()
    latents = torch.cat(list(kept.values())) * studio.model.scale_factor
    host = stack_pictures(decode_latent_batch(studio.model, latents, devices.cpu, check_for_nans=True))
    ours = pixels(clip)
    assert np.abs(ours - (255 * host.numpy()).astype(np.int16).transpose(0, 2, 3, 1)).max() <= 1


@pytest.mark.parametrize(("asked", "expected"), [(0, [1] * 4), (1, [1] * 4), (3, [3, 1]), (64, [4])])
def test_so_many_frames_are_decoded_at_once_and_look_the_same(studio, decoder, asked, expected):
    plain = pixels(studio.clip())
    decoder["calls"].clear()
    clip = studio.clip({"decode_chunk_size": asked})
    assert [shape[0] for shape in decoder["calls"]] == expected
    assert np.abs(pixels(clip) - plain).max() <= 1
    assert "decode" not in clip.infotexts[0].lower()


def test_each_frame_is_on_disk_before_the_next_is_decoded(studio, decoder):
    out, seen = studio.folder / "out", []

    def look():
        early = sorted(out.glob("decoded-7-*/frame_*.png"))
        seen.append(len(early))
        assert all(Image.open(path).info["parameters"].startswith("a cat") for path in early)

    decoder.update(dict.fromkeys(range(1, FRAMES + 1), look))
    clip = tiny_host.run(saved(studio))
    assert seen == list(range(FRAMES))
    assert not list(out.glob("decoded-*"))
    assert len(clip.images) == FRAMES


def test_a_crash_in_the_decoder_leaves_what_was_decoded(studio, decoder, caplog):
    def crash():
        raise RuntimeError("the device was lost")

    whole = pixels(studio.clip())
    decoder["calls"].clear()
    decoder[3] = crash
    with pytest.raises(RuntimeError, match="the device was lost"):
        tiny_host.run(saved(studio))
    (folder,) = (studio.folder / "out").glob("decoded-7-*")
    frames = [np.asarray(Image.open(path)) for path in sorted(folder.glob("frame_*.png"))]
    assert (np.stack(frames) == whole[:2]).all()
    assert f"2 frames that were decoded are in {folder}" in caplog.text


def test_interrupt_between_frames_keeps_those_that_are_there(studio, decoder):
    decoder[2] = lambda: shared.state.interrupt()
    clip = tiny_host.run(saved(studio))
    assert len(clip.images) == 2
    assert "interrupted while decoding: the clip has 2 frames" in clip.comments
    (folder,) = (path for path in (studio.folder / "out").iterdir() if path.is_dir())
    assert len(list(folder.glob("frame_*.png"))) == 2
    assert folder.name.endswith("7-interrupted")


def test_interrupt_while_sampling_still_shows_all_frames(studio, decoder):
    handle = studio.model.model.diffusion_model.register_forward_hook(lambda *args: shared.state.interrupt())
    assert len(studio.clip().images) == FRAMES
    handle.remove()


def test_short_memory_ends_in_tiles_of_a_near_picture(studio, decoder):
    whole = pixels(studio.clip(width=384, height=384))

    def too_much():
        raise RuntimeError("CUDA out of memory")

    decoder["calls"].clear()
    decoder[1] = too_much
    tiled = pixels(studio.clip(width=384, height=384))
    assert decoder["calls"][1][2:] == (24, 24)
    assert np.abs(tiled - whole).mean() < 12


def test_on_the_cpu_the_estimate_decides_since_no_error_comes(studio, decoder, monkeypatch):
    from motion.host import unet_windows

    monkeypatch.setattr(unet_windows, "_available_bytes", lambda: 2**20)
    studio.clip(width=256, height=256)
    assert {shape[2:] for shape in decoder["calls"]} == {(16, 16)}


def test_nan_is_the_hosts_error(studio, decoder, monkeypatch):
    monkeypatch.setattr(studio.model, "decode_first_stage", lambda z: torch.full((len(z), 3, 32, 32), torch.nan))
    for asked in (0, 4):
        with pytest.raises(devices.NansException, match="numbers from the VAE"):
            studio.clip({"decode_chunk_size": asked})


def test_the_hires_pass_and_inpainting_are_the_hosts(studio, decoder):
    looker = Latents()
    studio.clip(neighbours=(looker,), enable_hr=True, hr_scale=2)
    assert looker.samples.already_decoded
    assert len(decoder["calls"]) == FRAMES
    picture = Image.new("RGB", (32, 32), "red")
    studio.clip(neighbours=(looker,), make=tiny_host.img2img, init_images=[picture], mask=Image.new("L", (32, 32), 255))
    assert isinstance(looker.samples, torch.Tensor)
    studio.clip(neighbours=(looker,), make=tiny_host.img2img, init_images=[picture])
    assert looker.samples.already_decoded
