"""Stable Video Diffusion's single files: every tensor is accounted for, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from motion.checkpoints.inspection import inspect_file
from motion.checkpoints.loading import load_into
from motion.checkpoints.svd_file import SvdFile, SvdHints, open_svd, trained_frames
from motion.checkpoints.svd_parts import single_file_parts
from motion.errors import CheckpointError
from motion.models.autoencoder import AutoencoderConfig, AutoencoderKL, Encoder
from motion.models.clip_vision import ClipImageEncoder, ClipImageEncoderConfig
from motion.models.temporal_decoder import FrameDecoder
from motion.models.video_unet import SVD_CONFIG
from tests.checkpoints.files import narrow_tensors, write_tensors
from tests.goldens import read_golden
from tests.manifests import manifest_shapes
from tests.svd_networks import (
    CLIP_PREFIX,
    CONDITION_PREFIX,
    FIRST_STAGE_PREFIX,
    SMALL_AUTOENCODER,
    SMALL_CLIP,
    SMALL_UNET,
    TINY_CLIP,
    UNET_PREFIX,
    network_shapes,
    open_clip_shapes,
    small_tensors,
    write_small_file,
    write_yaml,
)
from tests.weights_recipe import fill

CPU, META = torch.device("cpu"), torch.device("meta")
NETWORKS = ("unet", "image_encoder", "encoder", "decoder")


def load_all(svd, device=CPU, dtype=None):
    return {name: getattr(svd, f"load_{name}")(device=device, dtype=dtype) for name in NETWORKS}


class Recorded(dict):
    """Tensors that remember which of them were asked for."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.read = set()

    def __getitem__(self, key):
        self.read.add(key)
        return super().__getitem__(key)


def test_every_tensor_of_the_public_file_has_its_place():
    shapes = manifest_shapes("svd")
    tensors = Recorded({key: torch.empty(shape, device="meta") for key, shape in shapes.items()})
    svd = SvdFile(Path("svd.safetensors"), single_file_parts(tensors), SvdHints())
    networks = load_all(svd, META)
    assert (svd.config.unet, svd.config.autoencoder) == (SVD_CONFIG, AutoencoderConfig())
    assert (svd.config.image_encoder, svd.config.decodes_clips) == (ClipImageEncoderConfig(), True)
    assert {name: len(network.state_dict()) for name, network in networks.items()} == {
        "unet": 1428,
        "image_encoder": 520,  # 392 in the file, where q, k and v are one
        "encoder": 108,
        "decoder": 266,
    }
    with META:
        unused = {
            **network_shapes(Encoder(AutoencoderConfig()), FIRST_STAGE_PREFIX + "encoder."),
            **network_shapes(AutoencoderKL(AutoencoderConfig()), CONDITION_PREFIX),
        }
    text = {key for key in shapes if key.startswith("conditioner.embedders.0.") and not key.startswith(CLIP_PREFIX)}
    assert len(shapes) == 2446
    assert len(text) == 6
    assert shapes.keys() - tensors.read == {key for key in unused if key not in tensors.read} | text


def test_image_encoder_equals_the_original():
    golden = read_golden("svd_clip_vision_tiny")
    shapes = {CLIP_PREFIX + key: shape for key, shape in open_clip_shapes(TINY_CLIP).items()}
    tensors = single_file_parts({key: fill(key, shape) for key, shape in shapes.items()}).image_encoder
    with META:
        encoder = ClipImageEncoder(TINY_CLIP)
    load_into(encoder, tensors, device=CPU, dtype=torch.float32, path="tiny")
    torch.testing.assert_close(encoder(golden["in.x"]), golden["out.image_embeds"], atol=2e-5, rtol=0)


@pytest.fixture(scope="module")
def small_file(tmp_path_factory):
    return write_small_file(tmp_path_factory.mktemp("svd") / "small.safetensors")


def test_small_file_loads_part_by_part(small_file):
    with open_svd(small_file) as svd:
        networks = load_all(svd)
    config = svd.config
    assert (config.unet, config.autoencoder, config.image_encoder) == (SMALL_UNET, SMALL_AUTOENCODER, SMALL_CLIP)
    assert (config.num_frames, config.vector_channels) == (4, 16)
    tensors = small_tensors()
    for name, prefix in (("unet", UNET_PREFIX), ("encoder", CONDITION_PREFIX), ("decoder", FIRST_STAGE_PREFIX)):
        assert all(torch.equal(value, tensors[prefix + key]) for key, value in networks[name].state_dict().items())
    assert not any(p.requires_grad or n.training for n in networks.values() for p in n.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_dtype_is_kept_or_given(tmp_path, dtype):
    path = write_small_file(tmp_path / "small.safetensors", dtype=dtype)
    with open_svd(path) as svd:
        assert {network.dtype for network in load_all(svd).values()} == {dtype}
        assert svd.load_unet(device=CPU, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_image_decoder_variant(tmp_path):
    path = write_small_file(tmp_path / "svd_xt_image_decoder.safetensors", small_tensors(decodes_clips=False))
    with open_svd(path) as svd:
        decoder = svd.load_decoder(device=CPU, dtype=None)
    assert isinstance(decoder, FrameDecoder)
    assert not svd.config.decodes_clips


def test_without_a_yaml_heads_have_64_channels(tmp_path):
    path = write_small_file(tmp_path / "small.safetensors")
    path.with_suffix(".yaml").unlink()
    with pytest.raises(CheckpointError, match=r"can't be split into heads by 64.* Put its yaml"):
        with open_svd(path):
            pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_channels": 320}, "`model_channels` of its yaml is 320, but its tensors say 32"),
        ({"num_frames": 0}, "`num_frames` must be a positive integer, got 0"),
        ({"num_head_channels": "many"}, "must be a positive integer"),
    ],
)
def test_yaml_that_does_not_fit(tmp_path, settings, message):
    path = write_small_file(tmp_path / "small.safetensors")
    write_yaml(path, **settings)
    with pytest.raises(CheckpointError, match=message), open_svd(path):
        pass


@pytest.mark.parametrize(
    ("name", "frames"),
    [
        ("svd.safetensors", 14),
        ("svd_image_decoder.safetensors", 14),
        ("svd_xt.safetensors", 25),
        ("svd_xt_1_1.safetensors", 25),
        ("stable-video-diffusion-img2vid-xt", 25),
        ("SVD-XT.fp16.safetensors", 25),
        ("next_svd.safetensors", 14),
    ],
)
def test_the_name_tells_the_trained_frames(name, frames):
    assert trained_frames(Path(name)) == frames


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("model.diffusion_model.time_embed.0.bias", "lacks 1 tensors: `time_embed.0.bias`"),
        ("model.diffusion_model.out.", "lacks 'out.2.weight'"),
        ("model.diffusion_model.middle_block.1.time_mixer", "lacks 1 tensors: `middle_block.1.time_mixer.mix_factor`"),
        ("conditioner.embedders.0.", "holds no image encoder"),
        ("conditioner.embedders.3.", "holds no encoder"),
        ("first_stage_model.", "holds no decoder"),
        (CLIP_PREFIX + "ln_post.bias", "lacks 1 tensors: `transformer.vision_model.post_layernorm.bias`"),
        (FIRST_STAGE_PREFIX + "decoder.conv_out.time_mix", "lacks 2 tensors: `decoder.conv_out.time_mix_conv.bias`"),
    ],
)
def test_incomplete_file(tmp_path, drop, message):
    tensors = {key: value for key, value in small_tensors().items() if not key.startswith(drop)}
    path = write_small_file(tmp_path / "small.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message), open_svd(path) as svd:
        load_all(svd)


def test_parts_that_do_not_fit_together(tmp_path):
    tensors = small_tensors()
    tensors[CLIP_PREFIX + "proj"] = torch.zeros(64, 40)
    path = write_small_file(tmp_path / "small.safetensors", tensors)
    with pytest.raises(CheckpointError, match="takes pictures as 48 channels, its image encoder makes 40"):
        with open_svd(path):
            pass


def test_truncated_file(tmp_path, small_file):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(small_file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="damaged or cut short"), open_svd(path):
        pass


@pytest.mark.parametrize(
    ("name", "title"),
    [("mm_sd_v15_v2", "a motion module in AnimateDiff's spelling"), ("v2_lora_ZoomIn", "a motion LoRA")],
)
def test_other_files_are_refused_by_name(tmp_path, name, title):
    path = write_tensors(tmp_path / "svd.safetensors", narrow_tensors(name))
    with pytest.raises(CheckpointError, match=f"This is {title}, not Stable Video Diffusion. Choose svd, svd_xt"):
        with open_svd(path):
            pass


def test_a_text_to_image_checkpoint_is_refused(tmp_path):
    shapes = {"model.diffusion_model.input_blocks.0.0.weight": (32, 4, 3, 3), "cond_stage_model.transformer.a": (1,)}
    path = write_tensors(tmp_path / "svd.ckpt", {key: torch.zeros(shape) for key, shape in shapes.items()})
    with pytest.raises(CheckpointError, match="This is a Stable Diffusion 1 checkpoint, not Stable Video"):
        with open_svd(path):
            pass


def test_no_file_and_an_unknown_one(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"), open_svd(tmp_path / "none.safetensors"):
        pass
    path = write_tensors(tmp_path / "a.pt", {"weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match="unknown kind, with tensors such as `weight`"), open_svd(path):
        pass


def test_inspection(tmp_path):
    tensors = narrow_svd()
    report = inspect_file(write_tensors(tmp_path / "svd_xt.safetensors", tensors))
    assert (report.kind, report.usable, report.reason) == ("svd", True, None)
    assert (report.num_frames_trained, report.widths) == (25, (64, 128, 256, 256))
    key = UNET_PREFIX + "out.2.weight"
    broken = write_tensors(tmp_path / "svd.safetensors", {name: tensors[name] for name in tensors if name != key})
    report = inspect_file(broken)
    assert (report.kind, report.usable) == ("svd", False)
    assert "lacks 'out.2.weight'" in report.reason


def narrow_svd():
    """The public keys with 64 channels in the place of 320; other sizes as small as they may be."""
    with META:
        encoder = network_shapes(AutoencoderKL(AutoencoderConfig(ch=32)), CONDITION_PREFIX)
    tensors = {}
    for key, shape in manifest_shapes("svd").items():
        if key.startswith(UNET_PREFIX):
            shape = tuple(size // 5 if size % 320 == 0 else size for size in shape)
            shape = tuple(8 if index and size > 8 and "attn2" not in key else size for index, size in enumerate(shape))
        elif key.startswith(CONDITION_PREFIX):
            shape = encoder[key]
        elif key.startswith(FIRST_STAGE_PREFIX):
            shape = tuple(size // 4 if size > 8 else size for size in shape)
        elif not key.startswith(CLIP_PREFIX) or "attn" in key or "mlp" in key:
            shape = tuple(1 for _ in shape)
        tensors[key] = torch.zeros(shape, dtype=torch.float16)
    tensors[UNET_PREFIX + "label_emb.0.0.weight"] = torch.zeros(256, 768, dtype=torch.float16)
    return tensors
