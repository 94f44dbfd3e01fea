"""SDXL in the embedded host: conditions as sgm and A1111 make them, and clips with motion modules for SDXL.

tests/data/a1111_sdxl.npz holds what a running AUTOMATIC1111 1.10.1 (CPU, fp32) made over its API of the same checkpoint
and modules, with a yaml for the narrow networks and this extension installed: every 7th token of its conds, the pooled
text and the first size of its vectors, and pictures.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.embeddings import Timesteps
from safetensors.torch import save_file

from motion.errors import SettingsError
from motion.models.size_embedding import embed_sizes
from motion.standalone import Pipeline, devices, host_state, lora_keys, sd_models, shared
from motion.standalone.samplers.common import images_tensor_to_samples
from motion.standalone.text.prompt_parser import (
    SdConditioning,
    get_learned_conditioning,
    get_multicond_learned_conditioning,
)
from tests import sdxl_files
from tests.demo_host import made_files, small

POOLED = sdxl_files.POOLED_WIDTH
LONG = ", ".join(["a lighthouse on a cliff in the evening sun"] * 9)

CASES = {
    "neg": {"prompt": "a (lighthouse:1.4), [sea]", "negative_prompt": "blurry, (ugly:1.2)", "seed": 6},
    "longneg": {"prompt": "a cat", "negative_prompt": LONG, "seed": 8},
    "and": {"prompt": "a cat AND a dog :0.6", "seed": 9},
    "skip3": {"prompt": "a cat", "seed": 18},
    "beta": {"prompt": "a lighthouse", "seed": 21},
    "hotshot": {"prompt": "a lighthouse", "negative_prompt": "x", "seed": 24},
}


@pytest.fixture(scope="module")
def recorded():
    with np.load(Path(__file__).parents[1] / "data" / "a1111_sdxl.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A checkpoint, and a module of each SDXL family; as with public files, the position table's length tells which."""
    folder = tmp_path_factory.mktemp("sdxl")
    save_file(sdxl_files.sdxl_tensors(), folder / "narrow-xl.safetensors")
    save_file(sdxl_files.motion_tensors(32), folder / "beta.safetensors")
    save_file(sdxl_files.motion_tensors(24), folder / "hotshot.safetensors")
    return folder


@pytest.fixture(scope="module")
def pipeline(folder):
    torch.set_num_threads(1)
    with Pipeline.from_files(folder / "narrow-xl.safetensors", precision="fp32") as pipeline:
        yield pipeline


@pytest.fixture
def model(pipeline):
    options = dict(shared.opts.data)
    with torch.no_grad():
        yield sd_models.reload_model_weights(info=sd_models.get_closet_checkpoint_match("narrow-xl"))
    shared.opts.data.clear()
    shared.opts.data.update(options)


def clip_with(pipeline, module, **fields):
    return pipeline(small(motion={"motion_module": str(module)}, **fields))


@pytest.fixture(scope="module")
def clips(pipeline, folder):
    return {name: clip_with(pipeline, folder / f"{name}.safetensors") for name in ("beta", "hotshot")}


def test_clips_of_both_families(clips):
    for clip in clips.values():
        assert (clip.frames.shape, clip.frames.dtype) == ((3, 64, 64, 3), np.uint8)
    assert not np.array_equal(clips["beta"].frames, clips["hotshot"].frames)
    assert "Motion module: " in clips["beta"].infotext


@pytest.mark.parametrize("name", ["neg", "longneg", "and", "beta", "hotshot"])
def test_pictures_are_a1111_s(pipeline, folder, recorded, name):
    is_clip = name in ("beta", "hotshot")
    motion = {"motion_module": str(folder / f"{name}.safetensors")} if is_clip else {"enabled": False}
    clip = pipeline(small(motion=motion, steps=4, **CASES[name]))
    np.testing.assert_allclose(clip.frames.astype(int), recorded[f"{name}/pictures"], rtol=0, atol=1)


@pytest.mark.parametrize("name", ["neg", "longneg", "and", "skip3"])
def test_conditions_are_a1111_s(model, recorded, name):
    if name == "skip3":
        shared.opts.data.update(CLIP_stop_at_last_layers=3, sdxl_clip_l_skip=True)
    prompt, negative = CASES[name]["prompt"], CASES[name].get("negative_prompt", "")
    size = {"width": 64, "height": 64}
    parts = get_multicond_learned_conditioning(model, SdConditioning([prompt], **size), 4).batch[0]
    uncond = get_learned_conditioning(model, SdConditioning([negative], is_negative_prompt=True, **size), 4)[0]
    conds = {f"c{index}": part.schedules[0].cond for index, part in enumerate(parts)} | {"uc": uncond[0].cond}
    for part, cond in conds.items():
        for key, values in (("crossattn", cond["crossattn"][::7]), ("vector", cond["vector"][: POOLED + 256])):
            np.testing.assert_allclose(values, recorded[f"{name}/{part}/{key}"], rtol=0, atol=2e-5)


def test_the_motion_module_ties_the_frames_together(pipeline, folder, clips):
    """The first frame of another clip from the same first noise differs: it has seen the other frames' noise."""
    settings = small(motion={"motion_module": str(folder / "beta.safetensors")})
    noise = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    first = pipeline(settings, latents=noise).frames
    noise[2] = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(2))
    assert not np.array_equal(pipeline(settings, latents=noise).frames[0], first[0])
    stills = pipeline(small(motion={"motion_module": str(folder / "beta.safetensors"), "motion_scale": 0}))
    assert not np.array_equal(stills.frames, clips["beta"].frames)


def test_the_same_seed_gives_the_same_bytes(pipeline, folder, clips):
    again = clip_with(pipeline, folder / "hotshot.safetensors")
    np.testing.assert_array_equal(again.frames, clips["hotshot"].frames)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": LONG},
        {"negative_prompt": LONG},
        {"prompt": "a cat AND a dog", "sampler": "DDIM"},
        {"prompt": "a [cat:dog:0.5]", "negative_prompt": "blurry", "hires_scale": 1.5, "hires_steps": 1},
        {"init_image": np.full((64, 64, 3), 90, np.uint8), "denoising_strength": 0.9},
    ],
)
def test_prompts_of_every_kind(pipeline, folder, clips, fields):
    clip = clip_with(pipeline, folder / "beta.safetensors", **fields)
    assert len(clip) == 3
    assert clip.frames.shape[1:] != clips["beta"].frames.shape[1:] or not np.array_equal(
        clip.frames, clips["beta"].frames
    )


@pytest.mark.parametrize("option", ["pad_cond_uncond", "pad_cond_uncond_v0"])
def test_padded_prompts(pipeline, folder, model, option):
    shared.opts.data[option] = True
    for fields in ({"prompt": LONG}, {"negative_prompt": LONG}):
        assert "Pad conds" in clip_with(pipeline, folder / "beta.safetensors", **fields).infotext


def test_modules_and_checkpoints_of_other_families_are_refused(pipeline, folder, tmp_path_factory):
    _, sd1, sd1_module = made_files(tmp_path_factory)
    steps = []
    settings = small(motion={"motion_module": str(sd1_module)})
    with pytest.raises(SettingsError, match=r"which is sdxl, got '.*\(SD1\.5\)\) for sd15\. Choose another"):
        pipeline(settings, on_step=lambda *step: steps.append(step))
    with Pipeline.from_files(sd1, precision="fp32") as other:
        settings = small(motion={"motion_module": str(folder / "hotshot.safetensors")})
        with pytest.raises(SettingsError, match=r"which is sd15, got '.*\(HotShot-XL \(SDXL\)\) for sdxl"):
            other(settings, on_step=lambda *step: steps.append(step))
    assert steps == []


def test_model_has_the_web_ui_s_attributes(model):
    assert (model.is_sdxl, model.is_sd1, model.is_sd2, model.parameterization) == (True, False, False, "eps")
    assert model.conditioner is model.cond_stage_model
    assert (model.model.conditioning_key, model.scale_factor) == ("crossattn", 0.13025)
    assert model.cond_stage_model_empty_prompt.shape == (1, 77, 192)
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    torch.testing.assert_close(model.alphas_cumprod, torch.cumprod(1 - betas, 0).float())
    assert sd_models.model_data.sd_model is host_state.current().sd_model_data.sd_model is model


def test_sizes_are_embedded_as_in_diffusers():
    sizes = torch.tensor([[1024, 768, 0, 16, 1024, 768], [1016, 1020, 3, 0, 512, 64]], dtype=torch.float32)
    oracle = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=0)
    expected = oracle(sizes.flatten()).reshape(2, 1536)
    torch.testing.assert_close(embed_sizes(sizes), expected, rtol=0, atol=1e-6)


def test_conditions_hold_both_encoders_the_pooled_text_and_the_sizes(model):
    conditioner = model.cond_stage_model
    shared.opts.data.update(sdxl_crop_top=8, sdxl_crop_left=24)
    cond = model.get_learned_conditioning(SdConditioning(["a cat", ""], width=640, height=512))
    assert (cond["crossattn"].shape, cond["vector"].shape) == ((2, 77, 192), (2, POOLED + 1536))
    tokens = conditioner.tokenizer.encode("a cat")
    end = torch.full((1, 75 - len(tokens) + 1), 49407)
    first_ids = torch.cat([torch.tensor([[49406, *tokens]]), end], dim=1)
    second_ids = first_ids.clone()
    second_ids[0, len(tokens) + 2 :] = 0
    hidden = conditioner.clip.transformer(first_ids, output_hidden_states=True).hidden_states[-2]
    second = conditioner.open_clip.transformer(second_ids, output_hidden_states=True)
    expected = torch.cat([hidden, second.hidden_states[-2]], dim=-1)
    torch.testing.assert_close(cond["crossattn"][:1], expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(cond["vector"][:1, :POOLED], second.text_embeds, rtol=0, atol=2e-5)
    sizes = embed_sizes(torch.tensor([[512.0, 640, 8, 24, 512, 640]]))
    assert torch.equal(cond["vector"][:, POOLED:], sizes.expand(2, -1))


def test_a_request_without_a_size_is_for_1024_pixels(model):
    cond = model.get_learned_conditioning(["a cat"])
    assert torch.equal(cond["vector"][:, POOLED:], embed_sizes(torch.tensor([[1024.0, 1024, 0, 0, 1024, 1024]])))


def test_only_empty_negative_prompts_become_zeros(model):
    def encode(*prompts, negative=True):
        return model.get_learned_conditioning(SdConditioning(list(prompts), is_negative_prompt=negative))

    empty = encode("", "")
    assert not empty["crossattn"].any()
    assert not empty["vector"][:, :POOLED].any()
    assert empty["vector"][:, POOLED:].any()
    for cond in (encode("", negative=False), encode("", "blurry"), encode(" ")):
        assert cond["crossattn"][0].any()
        assert cond["vector"][0, :POOLED].any()


def test_long_prompts_pool_the_first_chunk_and_weights_leave_the_vector_alone(model):
    head = "word " * 75
    plain, longer = (model.get_learned_conditioning([text]) for text in (head, head + "and more"))
    assert longer["crossattn"].shape == (1, 154, 192)
    torch.testing.assert_close(longer["vector"], plain["vector"])
    torch.testing.assert_close(longer["crossattn"][:, :77], plain["crossattn"])
    weighted, unweighted = (model.get_learned_conditioning([text]) for text in ("a (cat:1.4)", "a cat"))
    torch.testing.assert_close(weighted["vector"], unweighted["vector"])
    # Each encoder's mean is restored by itself.
    for channels in (slice(0, 64), slice(64, None)):
        ratio = weighted["crossattn"][0, :, channels] / unweighted["crossattn"][0, :, channels]
        assert ratio[2].mean() == pytest.approx(1.4 * ratio[0].mean().item(), rel=1e-3)


def test_clip_skip_counts_in_the_first_encoder_when_asked_to(model):
    plain = model.get_learned_conditioning(["a cat"])
    shared.opts.data["CLIP_stop_at_last_layers"] = 3
    assert torch.equal(model.get_learned_conditioning(["a cat"])["crossattn"], plain["crossattn"])
    shared.opts.data["sdxl_clip_l_skip"] = True
    skipped = model.get_learned_conditioning(["a cat"])["crossattn"]
    assert not torch.equal(skipped[..., :64], plain["crossattn"][..., :64])
    assert torch.equal(skipped[..., 64:], plain["crossattn"][..., 64:])


def test_apply_model_takes_sgm_s_conditions(model):
    cond = model.get_learned_conditioning(["a cat", "a dog"])
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([10.0, 500.5])
    expected = model.model.diffusion_model(x, t, cond["crossattn"], cond["vector"])
    assert torch.equal(model.apply_model(x, t, {**cond, "c_concat": [torch.zeros(2, 5, 1, 1)]}), expected)


def test_pictures_to_latents_and_back(model):
    picture = torch.rand(1, 3, 64, 64)
    torch.manual_seed(3)
    latents = images_tensor_to_samples(picture)
    torch.manual_seed(3)
    expected = 0.13025 * model.first_stage_model.encode(picture.to(devices.device) * 2 - 1).sample()
    torch.testing.assert_close(latents, expected)
    torch.testing.assert_close(model.decode_first_stage(latents), model.first_stage_model.decode(latents / 0.13025))


def test_lora_files_name_the_layers_of_both_text_encoders(model):
    targets = lora_keys.lora_targets(model.model.diffusion_model, model.cond_stage_model)
    for number, encoder in enumerate((model.cond_stage_model.clip, model.cond_stage_model.open_clip), start=1):
        layer = encoder.transformer.text_model.encoder.layers[1]
        prefix = f"lora_te{number}_text_model_encoder_layers_1_"
        assert targets[prefix + "self_attn_q_proj"] is layer.self_attn.q_proj
        assert targets[prefix + "mlp_fc1"] is layer.mlp.fc1
    block = model.model.diffusion_model.input_blocks[4][1].transformer_blocks[0]
    for name in ("input_blocks_4_1", "down_blocks_1_attentions_0"):
        assert targets[f"lora_unet_{name}_transformer_blocks_0_attn1_to_q"] is block.attn1.to_q
