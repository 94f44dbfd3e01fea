"""Every public file is told as itself and refused by all other detectors."""

from __future__ import annotations

import pytest

from motion.checkpoints.file_formats import FILE_FORMATS, recognise
from tests.checkpoints.files import diffusers_shapes
from tests.manifests import manifest_names, manifest_shapes

EXPECTED = {
    "AnimateLCM_sd15_t2v": "animatediff",
    "hsxl_temporal_layers": "hotshot",
    "mm_sd15_v2_lora_ZoomIn": "motion_lora",
    "mm_sd_v14": "animatediff",
    "mm_sd_v15": "animatediff",
    "mm_sd_v15_v2": "animatediff",
    "mm_sdxl_hs": "animatediff",
    "mm_sdxl_v10_beta": "animatediff",
    "sd15-pruned-core": "sd1",
    "sd_xl_base_1.0": "sdxl",
    "svd": "svd",
    "v1-5-pruned-emaonly": "sd1",
    "v2_lora_ZoomIn": "motion_lora",
    "v3_sd15_adapter": "domain_adapter",
    "v3_sd15_mm": "animatediff",
}
UNET = "model.diffusion_model.input_blocks.0.0.weight"
TEXT1 = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
TEXT2 = "cond_stage_model.model.ln_final.weight"
SITE = "down_blocks.0.motion_modules.0."
MOTION = {SITE + "temporal_transformer.norm.weight": (320,)}
SPATIAL = {"conv_in.weight": (320, 4, 3, 3), "down_blocks.0.resnets.0.norm1.weight": (320,)}
ATTENTION = SITE + "temporal_transformer.transformer_blocks.0.attention_blocks.0."
SVD_BLOCK = "up_blocks.0.resnets.0.temporal_res_block."
SPARSE = "controlnet_cond_embedding."
HAND_MADE = {
    "sd2": {UNET: (320, 4, 3, 3), TEXT2: (1024,)},
    "sdxl_refiner": {UNET: (384, 4, 3, 3), "conditioner.embedders.0.model.ln_final.weight": (1280,)},
    "inpainting": {UNET: (320, 9, 3, 3), TEXT1: (768,)},
    "sdxl_inpainting": {UNET: (320, 9, 3, 3), "conditioner.embedders.1.model.ln_final.weight": (1280,)},
    "unet": {UNET: (320, 4, 3, 3)},
    "svd_part": {"conv_in.weight": (320, 8, 3, 3), SVD_BLOCK + "conv1.weight": (320, 320, 3, 1, 1)},
    "svd_vae": {"decoder.conv_in.weight": (512, 4, 3, 3), "decoder." + SVD_BLOCK + "conv1.weight": (8, 8, 3, 1, 1)},
    "vae": {"decoder.conv_in.weight": (512, 4, 3, 3)},
    "lora": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)},
    "controlnet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
    "sparsectrl_rgb": {SPARSE + "weight": (320, 5, 3, 3), **MOTION, **SPATIAL},
    "sparsectrl_scribble": {SPARSE + "conv_in.weight": (16, 4, 3, 3), **MOTION, **SPATIAL},
    "sparsectrl_converted": {"input_hint_block.0.weight": (320, 5, 3, 3), **MOTION},
    "sparsectrl_diffusers": {SPARSE + "conv_in.weight": (16, 4, 3, 3), SITE + "norm.weight": (320,), **SPATIAL},
    "pia": {**MOTION, "conv_in.weight": (320, 9, 3, 3)},
    "pia_diffusers": {SITE + "norm.weight": (320,), "conv_in.weight": (320, 9, 3, 3)},
    "cameractrl": {
        "pose_encoder_state_dict.encoder_conv_in.weight": (320, 384, 3, 3),
        "attention_processor_state_dict." + ATTENTION + "processor.qkv_merge.weight": (320, 320),
    },
    "cameractrl_pruned": {ATTENTION + "processor.qkv_merge.weight": (320, 320)},
    "motionctrl": {**MOTION, SITE + "temporal_transformer.transformer_blocks.0.cc_projection.weight": (320, 332)},
    "animatelcm_i2v": {**MOTION, "img_encoder.conv_in.weight": (320, 4, 3, 3)},
    "fancy_video": {**MOTION, "FancyVideo": (1,)},
    "training": {**MOTION, **SPATIAL},
    "hotshot_unet": {"down_blocks.0.temporal_attentions.0.norm.weight": (320,), **SPATIAL},
    "diffusers": {SITE + "norm.weight": (320,), SITE + "transformer_blocks.0.attn1.to_q.weight": (320, 320)},
    "diffusers_v2": diffusers_shapes("mm_sd_v15_v2"),
    "diffusers_unet": {SITE + "norm.weight": (320,), **SPATIAL},
}
HAND_MADE_FORMATS = {
    "svd_vae": "svd_part",
    "inpainting": "special_checkpoint",
    "sdxl_inpainting": "special_checkpoint",
    "vae": "autoencoder",
    "sparsectrl_rgb": "sparsectrl",
    "sparsectrl_scribble": "sparsectrl",
    "sparsectrl_converted": "sparsectrl",
    "sparsectrl_diffusers": "sparsectrl",
    "pia_diffusers": "pia",
    "cameractrl": "camera_control",
    "cameractrl_pruned": "camera_control",
    "motionctrl": "camera_control",
    "animatelcm_i2v": "animate_lcm_i2v",
    "fancy_video": "motion_variant",
    "training": "animatediff_training",
    "hotshot_unet": "hotshot",
    "diffusers_v2": "diffusers",
    "diffusers_unet": "diffusers",
}


def test_every_record_has_an_expectation():
    assert sorted(EXPECTED) == manifest_names()


@pytest.mark.parametrize("name", EXPECTED)
def test_public_file_is_one_format(name):
    shapes = manifest_shapes(name)
    assert [each.id for each in FILE_FORMATS if each.matches(shapes)] == [EXPECTED[name]]


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_file_is_one_format(name):
    shapes = HAND_MADE[name]
    assert [each.id for each in FILE_FORMATS if each.matches(shapes)] == [HAND_MADE_FORMATS.get(name, name)]


@pytest.mark.parametrize("shapes", [{"weight": (3,)}, {"encoder.layers.0.bias": (3,), "conv": (1, 2)}])
def test_unknown_file(shapes):
    assert recognise(shapes) is None


def test_every_format_is_tested():
    tested = {*EXPECTED.values(), *(HAND_MADE_FORMATS.get(name, name) for name in HAND_MADE)}
    assert {each.id for each in FILE_FORMATS} == tested
