"""Every public file is told as itself and refused by all other detectors."""

from __future__ import annotations

import pytest

from motion.checkpoints.file_formats import FILE_FORMATS, recognise
from tests.manifests import manifest_names, manifest_shapes

EXPECTED = {
    "AnimateLCM_sd15_t2v": "animatelcm",
    "hsxl_temporal_layers": "hotshot",
    "mm_sd15_v2_lora_ZoomIn": "motion_lora",
    "mm_sd_v14": "sd15_v1",
    "mm_sd_v15": "sd15_v1",
    "mm_sd_v15_v2": "sd15_v2",
    "mm_sdxl_hs": "hotshot_converted",
    "mm_sdxl_v10_beta": "sdxl_beta",
    "sd15-pruned-core": "sd1",
    "sd_xl_base_1.0": "sdxl",
    "svd": "svd",
    "v1-5-pruned-emaonly": "sd1",
    "v2_lora_ZoomIn": "motion_lora",
    "v3_sd15_adapter": "domain_adapter",
    "v3_sd15_mm": "sd15_v3",
}
UNET = "model.diffusion_model.input_blocks.0.0.weight"
TEXT1 = "cond_stage_model.transformer.text_model.final_layer_norm.weight"
TEXT2 = "cond_stage_model.model.ln_final.weight"
MOTION = "down_blocks.0.motion_modules.0."
HAND_MADE = {
    "sd2": {UNET: (320, 4, 3, 3), TEXT2: (1024,)},
    "special_checkpoint": {UNET: (320, 9, 3, 3), TEXT1: (768,)},
    "unet": {UNET: (320, 4, 3, 3)},
    "autoencoder": {"decoder.conv_in.weight": (512, 4, 3, 3)},
    "lora": {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 320)},
    "controlnet": {"control_model.input_blocks.0.0.weight": (320, 4, 3, 3)},
    "sparsectrl": {
        "controlnet_cond_embedding.weight": (320, 5, 3, 3),
        MOTION + "temporal_transformer.norm.weight": (320,),
        "conv_in.weight": (320, 4, 3, 3),
    },
    "pia": {"conv_in.weight": (320, 9, 3, 3), MOTION + "temporal_transformer.norm.weight": (320,)},
    "motion_training": {"conv_in.weight": (320, 4, 3, 3), MOTION + "temporal_transformer.norm.weight": (320,)},
    "diffusers_adapter": {
        MOTION + "norm.weight": (320,),
        MOTION + "transformer_blocks.0.pos_embed.pe": (1, 32, 320),
        MOTION + "transformer_blocks.0.attn1.to_q.weight": (320, 320),
    },
}


def test_every_record_has_an_expectation():
    assert sorted(EXPECTED) == manifest_names()


@pytest.mark.parametrize("name", EXPECTED)
def test_public_file_is_one_format(name):
    shapes = manifest_shapes(name)
    assert [each.id for each in FILE_FORMATS if each.matches(shapes)] == [EXPECTED[name]]


@pytest.mark.parametrize("name", HAND_MADE)
def test_hand_made_file_is_one_format(name):
    assert [each.id for each in FILE_FORMATS if each.matches(HAND_MADE[name])] == [name]


@pytest.mark.parametrize("shapes", [{"weight": (3,)}, {"encoder.layers.0.bias": (3,), "conv": (1, 2)}])
def test_unknown_file(shapes):
    assert recognise(shapes) is None


def test_every_format_is_tested():
    assert {each.id for each in FILE_FORMATS} == {*EXPECTED.values(), *HAND_MADE}
