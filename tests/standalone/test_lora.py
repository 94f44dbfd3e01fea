"""LoRA: effect, names, and weights that come back bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from motion.models.unet import UNetConfig, UNetModel
from motion.standalone import extra_networks, lora, lora_keys, processing, script_base, shared
from tests.manifests import read_manifest
from tests.standalone.tiny_host import run, runner_of, running_host, txt2img

RANK = 3
UNET_KEY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
CONV_KEY = "lora_unet_mid_block_resnets_0_conv1"
TEXT_KEY = "lora_te_text_model_encoder_layers_1_mlp_fc1"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.set_num_threads(1)
    with running_host(tmp_path_factory.mktemp("host")) as loaded:
        yield loaded


@pytest.fixture
def folder(model):
    path = Path(shared.cmd_opts.lora_dir)
    path.mkdir(exist_ok=True)
    yield path
    for file in path.iterdir():
        file.unlink()


def write_lora(path, layers, alpha=1.5):
    """`layers`: name -> shape of the layer's weight; returns name -> expected ΔW."""
    generator = torch.Generator().manual_seed(len(layers))
    tensors, deltas = {}, {}
    for name, shape in layers.items():
        up = torch.randn(shape[0], RANK, *[1] * (len(shape) - 2), generator=generator)
        down = torch.randn(RANK, *shape[1:], generator=generator)
        tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
        tensors[f"{name}.alpha"] = torch.tensor(alpha)
        deltas[name] = (up.flatten(1) @ down.flatten(1)).reshape(shape) * alpha / RANK
    save_file(tensors, path)
    return deltas


def layer(model, key):
    return lora_keys.lora_targets(model.model.diffusion_model, model.cond_stage_model)[key]


def shapes(model, *keys):
    return {key: layer(model, key).weight.shape for key in keys}


def snapshot(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_same(model, before):
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[key], before[key]) for key in before)


def bytes_of(result):
    return result.images[0].tobytes()


class WeightsWhileSampling(script_base.Script):
    def __init__(self, model, keys):
        self.model, self.keys, self.seen = model, keys, {}

    def title(self):
        return "Spy"

    def process_before_every_sampling(self, p, *args, **kwargs):
        self.seen = {key: layer(self.model, key).weight.clone() for key in self.keys}


def test_weights_change_while_sampling_and_come_back(model, folder):
    keys = (UNET_KEY, CONV_KEY, TEXT_KEY)
    deltas = write_lora(folder / "style.safetensors", shapes(model, *keys))
    before, originals = snapshot(model), {key: layer(model, key).weight.clone() for key in keys}
    spy = WeightsWhileSampling(model, keys)
    p = txt2img(runner_of(spy), prompt="a cat <lora:style:0.5>")
    result = run(p)
    for key in keys:
        torch.testing.assert_close(spy.seen[key], originals[key] + 0.5 * deltas[key], rtol=0, atol=1e-5)
    assert_same(model, before)
    assert result.comments == ""
    assert "a cat <lora:style:0.5>" in result.info


def test_pictures_before_and_after_are_equal(model, folder):
    write_lora(folder / "style.safetensors", shapes(model, UNET_KEY, TEXT_KEY))
    plain = bytes_of(run(txt2img()))
    assert bytes_of(run(txt2img(prompt="a cat<lora:style:1>"))) != plain
    assert bytes_of(run(txt2img())) == plain
    assert bytes_of(run(txt2img(prompt="a cat<lora:style:0>"))) == plain


def test_two_networks_add_up(model, folder):
    first = write_lora(folder / "first.safetensors", shapes(model, UNET_KEY))
    second = write_lora(folder / "second.safetensors", shapes(model, UNET_KEY, TEXT_KEY), alpha=3.0)
    original = layer(model, UNET_KEY).weight.clone()
    spy = WeightsWhileSampling(model, [UNET_KEY])
    run(txt2img(runner_of(spy), prompt="<lora:first:0.5> x <lora:second:2>"))
    expected = original + 0.5 * first[UNET_KEY] + 2 * second[UNET_KEY]
    torch.testing.assert_close(spy.seen[UNET_KEY], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("tag", "te", "unet"),
    [
        ("<lora:style>", 1.0, 1.0),
        ("<lora:style:0.5>", 0.5, 0.5),
        ("<lora:style:0.5:2>", 0.5, 2.0),
        ("<lora:style:te=0.25:unet=-1>", 0.25, -1.0),
        ("<lora:style:0.5:unet=0>", 0.5, 0.0),
    ],
)
def test_weights_of_a_tag(model, tag, te, unet):
    _, found = extra_networks.parse_prompt(f"x {tag} y")
    assert lora.LoraRequest.from_params(found["lora"][0]) == lora.LoraRequest("style", te, unet)


@pytest.mark.parametrize("body", ["raise", "interrupt"])
def test_weights_come_back_after_a_failure(model, folder, body):
    write_lora(folder / "style.safetensors", shapes(model, UNET_KEY))
    before = snapshot(model)
    p = txt2img(prompt="<lora:style:1>")

    def sample(*args, **kwargs):
        assert not torch.equal(layer(model, UNET_KEY).weight, before_weight)
        if body == "raise":
            raise ValueError("in the middle")
        shared.state.interrupt()
        return torch.zeros(1, 4, 4, 4)

    before_weight = layer(model, UNET_KEY).weight.clone()
    p.sample = sample
    if body == "raise":
        with pytest.raises(ValueError, match="in the middle"):
            run(p)
    else:
        run(p)
    assert_same(model, before)


def test_unknown_names_and_bad_weights_are_comments(model, folder):
    before = snapshot(model)
    result = run(txt2img(prompt="a <lora:missing:1> <lora:style:much>"))
    assert "LoRA missing was not found in" in result.comments
    assert "Expected a number as weight of LoRA style" in result.comments
    assert_same(model, before)


def test_files_for_other_models_change_nothing(model, folder):
    wrong = {UNET_KEY: torch.Size((8, 8)), "lora_unet_no_such_layer": torch.Size((4, 4))}
    write_lora(folder / "wrong.safetensors", wrong)
    write_lora(folder / "part.safetensors", {**shapes(model, UNET_KEY), "lora_unet_no_such_layer": torch.Size((4, 4))})
    (folder / "page.safetensors").write_bytes(b"<!DOCTYPE html><html></html>")
    before = snapshot(model)
    result = run(txt2img(prompt="<lora:wrong:1><lora:part:1><lora:page:1>"))
    assert "LoRA wrong has no effect: Expected a LoRA layer for a weight" in result.comments
    assert "LoRA part: 1 of 2 layers don't fit this model." in result.comments
    assert "LoRA page has no effect" in result.comments
    assert_same(model, before)


def test_hires_prompt_has_its_own_networks(model, folder):
    write_lora(folder / "style.safetensors", shapes(model, UNET_KEY))
    before = snapshot(model)
    seen = []

    class Spy(script_base.Script):
        def title(self):
            return "Spy"

        def process_before_every_sampling(self, p, *args, **kwargs):
            changed = not torch.equal(layer(model, UNET_KEY).weight, original)
            seen.append((p.is_hr_pass, changed))

    original = layer(model, UNET_KEY).weight.clone()
    run(txt2img(runner_of(Spy()), enable_hr=True, hr_scale=1.5, hr_prompt="b <lora:style:1>"))
    assert seen == [(False, False), (True, True)]
    assert_same(model, before)


def test_convolutions_with_a_core(model):
    up, down, core = torch.randn(6, 2, 1, 1), torch.randn(2, 5, 1, 1), torch.randn(2, 2, 3, 3)
    tensors = {"lora_up.weight": up, "lora_down.weight": down, "lora_mid.weight": core}
    x = torch.randn(1, 5, 7, 7)
    delta = lora.weight_delta(tensors, torch.Size((6, 5, 3, 3)))
    conv = torch.nn.functional.conv2d
    torch.testing.assert_close(conv(x, delta), conv(conv(conv(x, down), core), up), rtol=0, atol=1e-4)


def test_names_in_a_real_file():
    """A domain adapter spells the UNet's layers as diffusers does; kohya's names are those, flattened."""
    targets = lora_keys.lora_targets(sd15_unet(), torch.nn.Module())
    names = {re.sub(r"\.processor\.(to_\w+?)_lora\..*", r".\1", key) for key in read_manifest("v3_sd15_adapter")}
    flat = {f"lora_unet_{name.replace('.', '_')}{'_0' if name.endswith('to_out') else ''}" for name in names}
    assert len(flat) == 128
    assert flat <= targets.keys()


def test_every_layer_has_the_name_and_the_shape_that_diffusers_gives_it():
    with torch.device("meta"):
        theirs = UNet2DConditionModel(cross_attention_dim=768)
    targets = lora_keys.lora_targets(sd15_unet(), torch.nn.Module())
    layers = [found for found in theirs.named_modules() if isinstance(found[1], torch.nn.Linear | torch.nn.Conv2d)]
    ours = {f"lora_unet_{path.replace('.', '_')}": layer.weight.shape for path, layer in layers}
    assert {name: targets[name].weight.shape for name in ours} == ours
    assert len({id(targets[name]) for name in ours}) == len(ours)


def sd15_unet():
    with torch.device("meta"):
        return UNetModel(UNetConfig())


def test_disabled_networks_stay_out(model, folder):
    write_lora(folder / "style.safetensors", shapes(model, UNET_KEY))
    plain = bytes_of(run(txt2img()))
    p = txt2img(prompt="a cat<lora:style:1>")
    p.disable_extra_networks = True
    assert bytes_of(run(p)) == plain


def test_another_kind_of_network(model):
    seen = []

    class Other(extra_networks.ExtraNetwork):
        def activate(self, p, params_list):
            seen.append([params.items for params in params_list])
            raise RuntimeError("swallowed")

        def deactivate(self, p):
            seen.append("deactivated")

    extra_networks.register_extra_network(Other("other"))
    try:
        result = run(txt2img(prompt="<other:a:b=c> x <nobody:1>"))
    finally:
        del extra_networks.extra_network_registry["other"]
    assert seen == [[["a", "b=c"]], "deactivated"]
    assert isinstance(result, processing.Processed)
